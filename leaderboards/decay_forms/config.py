"""Weight decay of the distance from the start, on the problems of tuning.

testbed_configs/tuning.py has the decay from 0, with and without prior networks,
on the same seeds.
"""

INPUT_DIM = [10, 100]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [100, 101, 102]

AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': 10, 'prior_scale': 0.,
     'weight_decay': [0.1, 0.3, 1.], 'num_batches': [300, 1000],
     'decay_from_start': True},
    {'agent': 'prior_only'},
]
