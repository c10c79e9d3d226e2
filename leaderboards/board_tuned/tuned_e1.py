"""Settings chosen by held-out labels, on the problems of the board.

Made by python -m experiments.choose_settings from the rows of
testbed_configs/tuning.py. Seeds of the board and of tuning are different.
batch_ensemble: 32 of 32 settings, 3 of 5 seeds, 36 problems.
bbb: 8 of 8 settings, 3 of 5 seeds, 36 problems.
deep_sub_ensemble: 32 of 32 settings, 3 of 5 seeds, 36 problems.
ensemble: 32 of 32 settings, 3 of 5 seeds, 36 problems.
hypermodel: 8 of 8 settings, 3 of 5 seeds, 36 problems.
layer_ensemble: 32 of 32 settings, 3 of 5 seeds, 36 problems.
mc_dropout: 32 of 32 settings, 3 of 5 seeds, 36 problems.
vnn: 32 of 32 settings, 3 of 5 seeds, 36 problems.
"""

INPUT_DIM = [10, 100, 1000]
DATA_RATIO = [1, 10, 100]
NOISE_STD = [1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

AGENTS = [
    {'agent': 'batch_ensemble',
     'learning_rate': 0.001,
     'num_batches': 300,
     'prior_scale': 0.0,
     'weight_decay': 0.3,
     'num_ensemble': 10},
    {'agent': 'bbb',
     'learning_rate': 0.001,
     'num_batches': 1000,
     'sigma_0': 0.5,
     'index_scale': 'unit'},
    {'agent': 'ensemble',
     'learning_rate': 0.001,
     'num_batches': 300,
     'prior_scale': 1.0,
     'weight_decay': 1.0,
     'num_ensemble': 10},
    {'agent': 'hypermodel',
     'learning_rate': 0.001,
     'num_batches': 300,
     'weight_decay': 0.3},
    {'agent': 'mc_dropout',
     'learning_rate': 0.001,
     'num_batches': 300,
     'dropout_rate': 0.2,
     'weight_decay': 1.0},
    {'agent': 'vnn',
     'learning_rate': 0.001,
     'num_batches': 1000,
     'loss_function': 'target_noise',
     'weight_decay': 0.3},
]
