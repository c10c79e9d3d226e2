"""Figure 5: all agents at their papers' settings, mean KL and its spread.

Oleksiienko & Iosifidis 2022 (arXiv 2210.04882), Fig. 5: the ranked layer
ensemble of K = 5 beside dropout, Bayes by backprop, VNN, hypermodel and deep
ensembles; and the agents that this project knows besides.

--max_num_train=1000 keeps the cells up to (100, 10) and (1000, 1); the cell
(1000, 100) has more training points than the dense exact posterior takes.
The picture of the results: python -m experiments.figure5.
"""

INPUT_DIM = [10, 100, 1000]
DATA_RATIO = [1, 10, 100]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

AGENTS = [
    {'agent': 'layer_ensemble', 'num_options': 5,
     'selection': ['none', 'oracle', 'val_nll']},
    {'agent': 'ensemble', 'num_ensemble': [10, 30]},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10},
    {'agent': 'batch_ensemble', 'num_ensemble': 10},
    {'agent': 'mc_dropout', 'dropout_rate': 0.05},
    {'agent': 'bbb', 'sigma_0': 100., 'index_scale': 'enn2021'},
    {'agent': 'vnn'},
    {'agent': 'hypermodel', 'index_dim': 20},
    # Audits: one network, the prior, the posterior itself, exact and sampled.
    {'agent': 'map'},
    {'agent': 'prior_only'},
    {'agent': 'exact_posterior', 'analytic': [True, False]},
]
