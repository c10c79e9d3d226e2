"""Settings that agents are tuned over, on seeds that no board uses.

Every family of agents here has the same budget, 24 settings, or 8 where a
problem takes more than five seconds (Bayes by backprop). VNN and the
hypermodel, which is slower still, are left out. `python -m
experiments.choose_settings` takes the best ones by held-out labels, also from a
sweep of some of the seeds (--seed=100,101,102) or of some of the agents.
"""

INPUT_DIM = [10, 100]
DATA_RATIO = [1, 10]
NOISE_STD = [0.01, 0.1, 1.0]
SEED = [100, 101, 102, 103, 104]

_DECAY = [0., 0.1, 0.3, 1.]
_STEPS = [300, 1000, 3000]

AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': 10, 'weight_decay': _DECAY,
     'prior_scale': [0., 1.], 'num_batches': _STEPS},
    {'agent': 'layer_ensemble', 'num_options': 3, 'weight_decay': _DECAY,
     'prior_scale': [0., 1.], 'num_batches': _STEPS},
    {'agent': 'batch_ensemble', 'num_ensemble': 10, 'weight_decay': _DECAY,
     'prior_scale': [0., 1.], 'num_batches': _STEPS},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10, 'weight_decay': _DECAY,
     'prior_scale': [0., 1.], 'num_batches': _STEPS},
    {'agent': 'mc_dropout', 'weight_decay': _DECAY,
     'dropout_rate': [0.05, 0.2], 'num_batches': _STEPS},
    {'agent': 'bbb', 'index_scale': 'unit', 'sigma_0': [0.5, 1.],
     'learning_rate': [1e-3, 3e-3], 'num_batches': [500, 1000]},
]
