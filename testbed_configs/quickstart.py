"""Every agent at its paper's setting, on the smallest problems of the grid."""

INPUT_DIM = [10]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2]

AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': 10},
    {'agent': 'layer_ensemble', 'num_options': 3},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10},
    {'agent': 'batch_ensemble', 'num_ensemble': 10},
    {'agent': 'mc_dropout', 'dropout_rate': 0.05},
    {'agent': 'bbb', 'sigma_0': 100.},
    {'agent': 'vnn'},
    # Of the paper's 5, 10 and 20: 20 draws twice the indices per step.
    {'agent': 'hypermodel', 'index_dim': 10},
    # Its last layers are solved, not trained; it is told the kernel.
    {'agent': 'random_features', 'width': 512},
    # Audits: the posterior itself, exactly and sampled; the prior; one network.
    {'agent': 'exact_posterior', 'analytic': [True, False]},
    {'agent': 'prior_only'},
    {'agent': 'map'},
]
