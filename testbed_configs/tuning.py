"""Settings that agents are tuned over, on seeds that no board uses.

Every family of agents here has the same budget, 32 settings, or 8 where a
problem takes more than five seconds (Bayes by backprop, the hypermodel). With
Adam, fewer steps do what a lower learning rate would, so that only a higher one
is tried beside the number of steps. `python -m experiments.choose_settings`
takes the best ones by held-out labels, also from a sweep of some of the seeds
(--seed=100,101,102) or of some of the agents.
"""

INPUT_DIM = [10, 100]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [100, 101, 102, 103, 104]

_DECAY = [0., 0.1, 0.3, 1.]
_SCHEDULES = [{'num_batches': [300, 1000, 3000]},
              {'num_batches': 1000, 'learning_rate': 3e-3}]
_FAMILIES = [
    {'agent': 'ensemble', 'num_ensemble': 10, 'prior_scale': [0., 1.]},
    {'agent': 'layer_ensemble', 'num_options': 3, 'prior_scale': [0., 1.]},
    {'agent': 'batch_ensemble', 'num_ensemble': 10, 'prior_scale': [0., 1.]},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10,
     'prior_scale': [0., 1.]},
    {'agent': 'mc_dropout', 'dropout_rate': [0.05, 0.2]},
    {'agent': 'vnn', 'loss_function': ['bootstrap', 'target_noise']},
]

AGENTS = [{**family, 'weight_decay': _DECAY, **schedule}
          for family in _FAMILIES for schedule in _SCHEDULES] + [
    {'agent': 'bbb', 'index_scale': 'unit', 'sigma_0': [0.5, 1.],
     'learning_rate': [1e-3, 3e-3], 'num_batches': [500, 1000]},
    {'agent': 'hypermodel', 'weight_decay': [0., 0.3],
     'learning_rate': [1e-3, 3e-3], 'num_batches': [300, 1000]},
]
