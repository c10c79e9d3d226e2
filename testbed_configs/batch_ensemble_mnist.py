"""Is BatchEnsemble a single model? The study's controlled experiment on MNIST.

Zamyatin et al. (arXiv 2601.16936): an MLP 784-64-32-16-10 with ReLU, k = 4,
Adam 1e-3, weight decay 1e-4, batches of 128, images moved by up to 4 pixels,
early stopping on validation accuracy, up to 75 epochs. Our validation set is a
tenth of the training set, where the study's code selects on the test set; its
dropout of 0.05 in all methods is left out here. The files of MNIST and notMNIST
are needed (docs/images.md); where Fashion-MNIST is there too, add it to OOD.
"""

PROBLEMS = 'images'
DATASET = ['mnist']
SHIFTS = ['rotation', 'gaussian_noise', 'impulse_noise', 'gaussian_blur',
          'contrast']
OOD = ['notmnist']
PAD = 4
SEED = [0, 1, 2, 3, 4]
NUM_ENN_SAMPLES = 4  # Of methods whose index has infinitely many values.

_EPOCH = 421  # Whole batches of 54,000 images.
_TRAINING = {
    'hidden_sizes': (64, 32, 16), 'first_bias_std': 0., 'learning_rate': 1e-3,
    'l2': 1e-4, 'batch_size': 128, 'sampling': 'epochs',
    'num_batches': 75 * _EPOCH, 'validate_every': _EPOCH, 'patience': 10,
    'min_delta': 1e-3, 'validate_by': 'error'}
_MEMBERS = {**_TRAINING, 'prior_scale': 0.}

AGENTS = [
    {'agent': 'map', **_TRAINING},
    {'agent': 'ensemble', 'num_ensemble': 4, **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'sign',
     **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'normal',
     'fast_std': [0.1, 0.5], **_MEMBERS},
    # As in the public code of the study.
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'normal',
     'fast_std': 0.5, 'plain_member': True, 'train_shared_by_plain': True,
     **_MEMBERS},
    {'agent': 'mc_dropout', 'dropout_rate': 0.1, 'dropout_input': False,
     **_TRAINING},
    {'agent': 'layer_ensemble', 'num_options': 2, **_MEMBERS},
]
