"""How far do two machines' scores of one computation differ?

Every kind of agent of regression, on small problems.
docs/clusters.md says with which flags it was run on two instruction sets, and
what came out; python -m experiments.compare_numerics makes the table.
"""

INPUT_DIM = [10]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1]

_SELECTIONS = ['none', 'oracle', 'val_nll']

AGENTS = [
    {'agent': 'map'},
    {'agent': 'ensemble', 'num_ensemble': [2, 3, 30]},
    {'agent': 'ensemble', 'num_ensemble': 10, 'selection': _SELECTIONS},
    {'agent': 'layer_ensemble', 'num_options': 2},
    {'agent': 'layer_ensemble', 'num_options': 3, 'selection': _SELECTIONS},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10},
    {'agent': 'batch_ensemble', 'num_ensemble': 10},
    {'agent': 'mc_dropout', 'dropout_rate': 0.05},
    {'agent': 'mean_variance_ensemble', 'num_ensemble': 5},
    {'agent': 'bbb', 'sigma_0': 100., 'index_scale': 'enn2021'},
    {'agent': 'bbb', 'sigma_0': 1., 'index_scale': 'unit'},
    {'agent': 'hypermodel', 'index_dim': 5, 'num_batches': 500},
    {'agent': 'vnn'},
    {'agent': 'random_features', 'width': 512},
    {'agent': 'exact_posterior', 'analytic': [True, False]},
    {'agent': 'prior_only'},
]
