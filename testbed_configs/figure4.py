"""Figure 4: KL by number of samples P, in random and in ranked order.

Oleksiienko & Iosifidis 2022 (arXiv 2210.04882), Fig. 4: the greedy ranking of
a layer ensemble's J = K^3 combinations on validation inputs, for each K, and
deep ensembles to compare with. 'oracle' ranks by KL to the exact posterior, as
the paper does; 'val_nll' by held-out labels. A deep ensemble of 30 is ranked
as well, so that ranking is not taken for a virtue of layer ensembles.

--max_num_train=1000 keeps the cells up to (100, 10) and (1000, 1); the cell
(1000, 100) has more training points than the dense exact posterior takes.
The picture of the results: python -m experiments.figure4.
"""

INPUT_DIM = [10, 100, 1000]
DATA_RATIO = [1, 10, 100]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

AGENTS = [
    {'agent': 'layer_ensemble', 'num_options': [2, 3, 5, 6],
     'selection': ['none', 'oracle', 'val_nll']},
    {'agent': 'ensemble', 'num_ensemble': [10, 30]},
    {'agent': 'ensemble', 'num_ensemble': 30,
     'selection': ['oracle', 'val_nll']},
]
