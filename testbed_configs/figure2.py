"""Figure 2: KL by options, members and random samples; what training changes.

Oleksiienko & Iosifidis 2022 (arXiv 2210.04882), Fig. 2: layer ensembles of K
options beside deep ensembles of K members, with and without priors. Two more
questions are asked of the layer ensemble: target noise by combination or by
first option, and training on a random subset of the combinations per step.

--max_num_train=1000 keeps the cells up to (100, 10) and (1000, 1); the cell
(1000, 100) has more training points than the dense exact posterior takes.
The picture of the results: python -m experiments.figure2.
"""

INPUT_DIM = [10, 100, 1000]
DATA_RATIO = [1, 10, 100]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

AGENTS = [
    {'agent': 'layer_ensemble', 'num_options': [2, 3, 5, 6],
     'prior_scale': [0., 1.]},
    {'agent': 'layer_ensemble', 'num_options': [8, 10]},
    {'agent': 'ensemble', 'num_ensemble': [2, 3, 5, 10, 30]},
    {'agent': 'ensemble', 'num_ensemble': [3, 10, 30], 'prior_scale': 0.},
    # The published code ties the target noise to the first layer's option.
    {'agent': 'layer_ensemble', 'num_options': [2, 3],
     'noise_by': 'first_option'},
    # About sqrt(J) / K and sqrt(J) of the J = K^3 combinations per step.
    {'agent': 'layer_ensemble', 'num_options': 3, 'num_index_samples': [2, 5]},
    {'agent': 'layer_ensemble', 'num_options': 5, 'num_index_samples': [2, 11]},
]
