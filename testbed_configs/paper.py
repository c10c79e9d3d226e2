"""The papers' full grid, 27 cells of 10 seeds, and the agents they compare.

Osband et al. 2021 (arXiv 2107.08924); Oleksiienko & Iosifidis 2022 (arXiv
2210.04882). The cell (1000, 100) has 100,000 training points: its ground truth
is matrix-free, 11 to 18 minutes per seed on two cores, and exact_posterior
solves for it again, per noise level. --max_num_train=10000 leaves it out.
"""

INPUT_DIM = [10, 100, 1000]
DATA_RATIO = [1, 10, 100]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': [1, 3, 10, 30]},
    {'agent': 'ensemble', 'num_ensemble': 10, 'prior_scale': 0.},
    {'agent': 'layer_ensemble', 'num_options': [2, 3, 5]},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10},
    {'agent': 'batch_ensemble', 'num_ensemble': 10},
    {'agent': 'mc_dropout', 'dropout_rate': 0.05},
    # As published, and with the prior of its own loss (the default).
    {'agent': 'bbb', 'sigma_0': 100., 'index_scale': 'enn2021'},
    {'agent': 'bbb', 'sigma_0': 1., 'index_scale': 'unit'},
    {'agent': 'vnn'},
    {'agent': 'hypermodel', 'index_dim': 20},
    # Its last layers are solved, not trained; it is told the kernel.
    {'agent': 'random_features'},
    # Audits: the posterior itself, exactly and sampled; the prior; one network.
    {'agent': 'exact_posterior', 'analytic': [True, False]},
    {'agent': 'prior_only'},
    {'agent': 'map'},
]
