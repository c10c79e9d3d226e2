"""Is BatchEnsemble a single model? The study's controlled experiment on MNIST.

Zamyatin et al. (arXiv 2601.16936): an MLP 784-64-32-16-10 with ReLU and dropout
0.05, k = 4 (and 2 and 8 here), Adam 1e-3, weight decay 1e-4, batches of 128,
images moved by up to 4 pixels, early stopping on validation accuracy, up to 75
epochs; MC dropout has rate 0.1 and 4 draws. Our validation set is a tenth of
the training set, where the study's code selects on the test set. The files of
MNIST, notMNIST and Fashion-MNIST are needed (docs/images.md); what is missing
can be taken out of OOD.
"""

PROBLEMS = 'images'
DATASET = ['mnist']
SHIFTS = ['rotation', 'gaussian_noise', 'impulse_noise', 'gaussian_blur',
          'contrast']
OOD = ['notmnist', 'fashion_mnist']
PAD = 4
SEED = [0, 1, 2, 3, 4]
NUM_ENN_SAMPLES = 4  # Of methods whose index has infinitely many values.

_EPOCH = 421  # Whole batches of 54,000 images.
_SIZES = {'hidden_sizes': (64, 32, 16)}
_TRAINING = {
    'learning_rate': 1e-3, 'batch_size': 128, 'sampling': 'epochs',
    'num_batches': 75 * _EPOCH, 'validate_every': _EPOCH, 'patience': 10,
    'min_delta': 1e-3, 'validate_by': 'error'}
_NETWORK = {**_SIZES, **_TRAINING, 'body': 'mlp_dropout', 'first_bias_std': 0.,
            'l2': 1e-4}
_MEMBERS = {**_NETWORK, 'prior_scale': 0.}

AGENTS = [
    {'agent': 'map', **_NETWORK},
    {'agent': 'ensemble', 'num_ensemble': [2, 4, 8], **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': [2, 4, 8], 'fast_init': 'sign',
     **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': [2, 4, 8],
     'fast_init': 'normal', 'fast_std': [0.1, 0.5], **_MEMBERS},
    # As in the public code of the study.
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'normal',
     'fast_std': 0.5, 'plain_member': True, 'train_shared_by_plain': True,
     **_MEMBERS},
    {'agent': 'mc_dropout', 'dropout_rate': 0.1, 'dropout_input': False,
     **_SIZES, **_TRAINING, 'first_bias_std': 0., 'l2': 1e-4},
    {'agent': 'layer_ensemble', 'num_options': 2,
     'selection': ['none', 'val_nll'], **_MEMBERS},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 4, 'num_shared_layers': 2,
     **_MEMBERS},
    # It stays at chance from weights that do not shrink with a layer's inputs,
    # and learns from those of a network.
    {'agent': 'hypermodel', 'index_dim': 4, 'samples_per_dim': 1, **_SIZES,
     **_TRAINING, 'body': 'mlp_dropout', 'l2': 1e-4, 'prior_scale': 0.,
     'start_at_network': [False, True]},
    # It stays at its prior from means of 0, and learns from random ones.
    {'agent': 'bbb', 'num_index_samples': 1, **_SIZES, **_TRAINING},
    {'agent': 'bbb', 'num_index_samples': 1, 'initial_std': 0.05, **_SIZES,
     **_TRAINING},
]
