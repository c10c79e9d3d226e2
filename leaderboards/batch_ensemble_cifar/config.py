"""Is BatchEnsemble a single model? CIFAR-10 with a small CNN, for a CPU.

Zamyatin et al. (arXiv 2601.16936) train ResNet-18 on all 50,000 images by SGD
for 75 epochs, which needs an accelerator. This is the same question of 10,000
images, a CNN of 15,722 parameters, 20 epochs and 2,000 images of each test set,
on three seeds. CIFAR-10's images are JPEG files of quality 75 here;
OOD are 1,200 textures, compressed alike.
"""

PROBLEMS = 'images'
DATASET = ['cifar10']
NUM_TRAIN = [10000]
NUM_VAL = 2000
NUM_TEST = 2000
SHIFTS = ['gaussian_noise', 'gaussian_blur', 'contrast', 'jpeg']
OOD = ['npz:textures', 'permuted']
OOD_JPEG = 75  # As CIFAR-10's own images here.
LABEL = 'cifar10-jpeg75'
PAD = 4
FLIP = True
SEED = [0, 1, 2]
NUM_ENN_SAMPLES = 4  # Of methods whose index has infinitely many values.

_EPOCH = 78  # Whole batches of 10,000 images.
_TRAINING = {
    'body': 'small_cnn', 'learning_rate': 1e-3, 'batch_size': 128,
    'sampling': 'epochs', 'num_batches': 20 * _EPOCH, 'validate_every': _EPOCH,
    'patience': 10, 'min_delta': 1e-3, 'validate_by': 'error'}
# Bayes by backprop has the KL to its prior instead.
_NETWORK = {**_TRAINING, 'l2': 1e-4}
_MEMBERS = {**_NETWORK, 'prior_scale': 0.}

AGENTS = [
    {'agent': 'map', **_NETWORK},
    {'agent': 'ensemble', 'num_ensemble': 4, **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'sign',
     **_MEMBERS},
    {'agent': 'batch_ensemble', 'num_ensemble': 4, 'fast_init': 'normal',
     'fast_std': [0.1, 0.5], **_MEMBERS},
    {'agent': 'mc_dropout', 'dropout_rate': 0.1, 'dropout_input': False,
     **_NETWORK},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 4, 'num_shared_layers': 2,
     **_MEMBERS},
    {'agent': 'layer_ensemble', 'num_options': 2, 'num_index_samples': 4,
     'selection': ['none', 'val_nll'], **_MEMBERS},
    # From means of 0 it learns nothing; a smaller weight of the KL predicts
    # better.
    {'agent': 'bbb', 'num_index_samples': 1, 'initial_std': 0.05,
     'kl_weight': [0.01, 1.], **_TRAINING},
    {'agent': 'hypermodel', 'index_dim': 4, 'samples_per_dim': 1, **_MEMBERS},
]
