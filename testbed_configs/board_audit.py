"""Two trainings of every cheap agent, and a second one that is 10 % worse.

What the statistics of a board can tell apart: python -m experiments.board_audit.
"""

INPUT_DIM = [10, 100]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

_TWICE = {'replica': [0, 1], 'degrade': [0., 0.1]}

AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': [10, 30], **_TWICE},
    {'agent': 'layer_ensemble', 'num_options': [2, 3], **_TWICE},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10, **_TWICE},
    {'agent': 'batch_ensemble', 'num_ensemble': 10, **_TWICE},
    {'agent': 'mc_dropout', **_TWICE},
    {'agent': 'vnn', **_TWICE},
]
