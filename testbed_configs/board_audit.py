"""Two trainings of every cheap agent, and a second one that is 10 % worse.

`python -m experiments.board_audit` says what a board's statistics tell apart.
"""

INPUT_DIM = [10, 100]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

_SETTINGS = [
    {'agent': 'ensemble', 'num_ensemble': 10},
    {'agent': 'layer_ensemble', 'num_options': 2},
    {'agent': 'layer_ensemble', 'num_options': 3},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10},
    {'agent': 'batch_ensemble', 'num_ensemble': 10},
    {'agent': 'mc_dropout'},
]

AGENTS = [
    *[{**setting, 'replica': [0, 1]} for setting in _SETTINGS],
    *[{**setting, 'replica': 1, 'degrade': 0.1} for setting in _SETTINGS],
]
