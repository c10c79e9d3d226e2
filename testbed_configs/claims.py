"""What the Layer Ensembles paper's claims and figures need beside the board.

The settings that a claim is about (`experiments.verify_claims`) or that figures
2 and 4 draw, on the papers' full grid; the rows of the published board
(testbed_configs/paper.py) hold the other agents. --max_num_train=10000 leaves
out the cell (1000, 100). --input_dim=10,100 --data_ratio=1,10 takes the twelve
cells of the first board.
"""

INPUT_DIM = [10, 100, 1000]
DATA_RATIO = [1, 10, 100]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

AGENTS = [
    {'agent': 'layer_ensemble', 'num_options': 5,
     'selection': ['oracle', 'val_nll']},
    {'agent': 'ensemble', 'num_ensemble': [2, 5]},
    {'agent': 'layer_ensemble', 'num_options': [2, 3, 5, 6],
     'prior_scale': 0.},
    {'agent': 'layer_ensemble', 'num_options': 3,
     'selection': ['oracle', 'val_nll', 'val_nll_budget']},
    {'agent': 'layer_ensemble', 'num_options': 6,
     'selection': ['none', 'oracle', 'val_nll']},
    # About sqrt(J) of the J = K^3 combinations per step.
    {'agent': 'layer_ensemble', 'num_options': 3, 'num_index_samples': 5},
    {'agent': 'layer_ensemble', 'num_options': 5, 'num_index_samples': 11},
    {'agent': 'ensemble', 'num_ensemble': [3, 30], 'prior_scale': 0.},
    # What only the figures show.
    {'agent': 'layer_ensemble', 'num_options': [8, 10]},
    {'agent': 'layer_ensemble', 'num_options': 2,
     'selection': ['oracle', 'val_nll']},
    {'agent': 'ensemble', 'num_ensemble': 30,
     'selection': ['oracle', 'val_nll']},
    {'agent': 'layer_ensemble', 'num_options': [2, 3],
     'noise_by': 'first_option'},
    {'agent': 'layer_ensemble', 'num_options': [3, 5], 'num_index_samples': 2},
]
