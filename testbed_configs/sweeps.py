"""The papers' hyperparameter grids, agent by agent, on the full problem grid.

Narrow it: --agents=bbb is the sweep of one agent. The cell (1000, 100) has
100,000 training points, more than the dense exact posterior takes:
--max_num_train=10000 leaves it out.
"""

INPUT_DIM = [10, 100, 1000]
DATA_RATIO = [1, 10, 100]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': [1, 3, 10, 30],
     'prior_scale': [0., 1.], 'noise_scale': [0., 1.]},
    {'agent': 'layer_ensemble', 'num_options': [2, 3, 5, 6, 8, 10]},
    {'agent': 'layer_ensemble', 'num_options': [2, 3, 5, 6, 8, 10],
     'prior_scale': 0.},
    {'agent': 'layer_ensemble', 'num_options': 3,
     'noise_by': ['combination', 'first_option']},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': [3, 10, 30],
     'num_shared_layers': [0, 1, 2]},
    {'agent': 'batch_ensemble', 'num_ensemble': [3, 10, 30]},
    {'agent': 'batch_ensemble', 'num_ensemble': 10, 'fast_init': 'normal',
     'fast_std': [0.1, 0.5]},
    {'agent': 'mc_dropout', 'dropout_rate': [0.05, 0.1, 0.2],
     'weight_decay_scale': [0., 1e-6, 1e-4]},
    {'agent': 'bbb', 'index_scale': 'enn2021',
     'sigma_0': [1., 10., 100., 200.],
     'learning_rate': [1e-3, 3e-4, 1e-4]},
    {'agent': 'vnn', 'activation': ['relu', 'tanh'],
     'activation_mode': ['mean', 'std', 'end', 'mean+std']},
    {'agent': 'vnn', 'global_std_mode': ['none', 'multiply', 'replace'],
     'hidden_sizes': [(100, 100), (100, 100, 100)]},
    {'agent': 'hypermodel', 'index_dim': [5, 10, 20], 'prior_scale': [0., 5.]},
    {'agent': 'random_features', 'num_ensemble': [10, 30],
     'width': [512, 1024, 2048, 4096]},
    {'agent': 'exact_posterior', 'analytic': [True, False]},
    {'agent': 'prior_only', 'analytic': [True, False]},
    {'agent': 'map', 'learning_rate': [1e-3, 3e-4, 1e-4]},
]
