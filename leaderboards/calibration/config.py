"""Calibration of the board's cheap agents: rows that keep the PIT of f."""

INPUT_DIM = [10]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4]

AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': [10, 30]},
    {'agent': 'layer_ensemble', 'num_options': [3, 5]},
    {'agent': 'batch_ensemble', 'num_ensemble': 10},
    {'agent': 'mc_dropout', 'dropout_rate': 0.05},
    {'agent': 'vnn'},
    {'agent': 'exact_posterior', 'analytic': [True, False]},
    {'agent': 'prior_only'},
]
