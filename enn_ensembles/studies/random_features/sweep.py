"""Random features whose last layer Adam trains, beside the solved ones.

Given --agent_module=enn_ensembles/studies/random_features/
trained_last_layer.py.
"""

INPUT_DIM = [10, 100]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1]

AGENTS = [
    {'agent': 'trained_last_layer', 'width': [128, 512], 'num_batches': 1000},
    {'agent': 'trained_last_layer', 'width': 128, 'num_batches': 10000},
]
