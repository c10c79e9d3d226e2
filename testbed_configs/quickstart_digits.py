"""Every method that classifies, on scikit-learn's digits: no file needed.

8 x 8 images of the digits 0 to 7; 8 and 9, and the test images with their
pixels permuted, are what no network has seen. Two seeds, less than a minute on
two idle cores. The study of the same images is batch_ensemble_digits.py.
"""

PROBLEMS = 'images'
DATASET = ['digits']
SHIFTS = ['rotation', 'gaussian_noise']
HELD_OUT = [8, 9]
OOD = ['held_out', 'permuted']
SEED = [0, 1]
NUM_ENN_SAMPLES = 20  # Of methods whose index has infinitely many values.

_TRAINING = {
    'hidden_sizes': (64, 32, 16), 'learning_rate': 3e-3, 'batch_size': 32,
    'sampling': 'epochs', 'num_batches': 1080, 'validate_every': 27,
    'patience': 10, 'validate_by': 'nll'}
_NETWORK = {**_TRAINING, 'first_bias_std': 0.}
_MEMBERS = {**_NETWORK, 'prior_scale': 0., 'l2': 1e-4}

AGENTS = [
    {'agent': 'map', 'l2': 1e-4, **_NETWORK},
    {'agent': 'ensemble', 'num_ensemble': 4, **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'sign',
     **_MEMBERS},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 4, 'num_shared_layers': 2,
     **_MEMBERS},
    {'agent': 'layer_ensemble', 'num_options': 2, **_MEMBERS},
    {'agent': 'mc_dropout', 'dropout_rate': 0.1, 'dropout_input': False,
     'l2': 1e-4, **_NETWORK},
    # From means of 0 it stays at its prior. Of the weights of the KL that
    # docs/images.md compares, this one has the best validation NLL.
    {'agent': 'bbb', 'num_index_samples': 2, 'initial_std': 0.05,
     'kl_weight': 0.01, **_TRAINING},
    {'agent': 'vnn', 'num_index_samples': 2, **_TRAINING},
    {'agent': 'hypermodel', 'index_dim': 4, 'samples_per_dim': 1,
     'prior_scale': 0., 'start_at_network': True, **_TRAINING},
    {'agent': 'mixture_of_experts', 'num_experts': 4, 'l2': 1e-4, **_NETWORK},
]
