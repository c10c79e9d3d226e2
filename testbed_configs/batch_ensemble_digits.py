"""Is BatchEnsemble a single model? On scikit-learn's digits: no file needed.

What Zamyatin et al. ask (arXiv 2601.16936), on 8 x 8 images of the digits 0 to
7; 8 and 9 are what no network has seen. The MLP has the study's hidden sizes.
Early stopping is by validation NLL: an accuracy on so few images moves by whole
images. python -m experiments.batch_ensemble_study makes the tables.
"""

PROBLEMS = 'images'
DATASET = ['digits']
SHIFTS = ['rotation', 'gaussian_noise', 'contrast']
HELD_OUT = [8, 9]
OOD = ['held_out', 'permuted', 'quarter_turn']
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
NUM_ENN_SAMPLES = 4  # Of methods whose index has infinitely many values.

_TRAINING = {
    'hidden_sizes': (64, 32, 16), 'first_bias_std': 0., 'learning_rate': 1e-3,
    'l2': 1e-4, 'batch_size': 32, 'sampling': 'epochs', 'num_batches': 6000,
    'validate_every': 30, 'patience': 20, 'validate_by': 'nll'}
_MEMBERS = {**_TRAINING, 'prior_scale': 0.}

AGENTS = [
    {'agent': 'map', **_TRAINING},
    {'agent': 'ensemble', 'num_ensemble': [2, 4, 8], **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': [2, 4, 8],
     'fast_init': 'sign', **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'normal',
     'fast_std': [0.1, 0.25, 0.5], **_MEMBERS},
    # Fast weights that learn ten times more slowly, or faster.
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'sign',
     'fast_learning_rate': [1e-4, 1e-2], **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'normal',
     'fast_std': 0.5, 'fast_learning_rate': [1e-4, 1e-2], **_MEMBERS},
    # As in the public code of the study.
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'normal',
     'fast_std': 0.5, 'plain_member': True, 'train_shared_by_plain': True,
     **_MEMBERS},
    {'agent': 'mc_dropout', 'dropout_rate': 0.1, 'dropout_input': False,
     **_TRAINING},
    {'agent': 'layer_ensemble', 'num_options': 2,
     'selection': ['none', 'val_nll'], **_MEMBERS},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 4, 'num_shared_layers': 2,
     **_MEMBERS},
]
