"""Twelve agents, on one (D_x, lambda) of the grid.

Six problems, about a minute on two cores. All agents but one have their papers'
settings: the hypermodel has the smallest of its index dimensions, 5, and half
the steps, since it would take longer than all others together. The whole grid
is paper.py.
"""

INPUT_DIM = [10]
DATA_RATIO = [10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1]

AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': 10},
    {'agent': 'layer_ensemble', 'num_options': 3},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10},
    {'agent': 'batch_ensemble', 'num_ensemble': 10},
    {'agent': 'mc_dropout', 'dropout_rate': 0.05},
    {'agent': 'bbb', 'sigma_0': 100., 'index_scale': 'enn2021'},
    {'agent': 'vnn'},
    {'agent': 'hypermodel', 'index_dim': 5, 'num_batches': 500},
    # Its last layers are solved, not trained; it is told the kernel.
    {'agent': 'random_features', 'width': 512},
    # Audits: the posterior itself, exactly and sampled; the prior; one network.
    {'agent': 'exact_posterior', 'analytic': [True, False]},
    {'agent': 'prior_only'},
    {'agent': 'map'},
]
