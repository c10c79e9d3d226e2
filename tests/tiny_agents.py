"""Every agent in a small setting, and data that it trains on in no time."""

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles.nngp import kernels

RNG = np.random.default_rng(0)
KEY = jax.random.PRNGKey(0)
X = jnp.asarray(RNG.standard_normal((5, 2)))

NAMES = agents_lib.agent_names()
AUDITS = ('exact_posterior', 'prior_only')
UNTRAINED = (*AUDITS, 'random_features')
NETWORKS = [name for name in NAMES if name not in UNTRAINED]
# One hidden layer: compiling is nearly all of the time.
TINY = {'hidden_sizes': (4,), 'num_batches': 6, 'batch_size': 4}
FEW = {
    'bbb': {'num_index_samples': 3},
    'hypermodel': {'index_dim': 4, 'samples_per_dim': 2},
    'layer_ensemble': {'num_options': 2},
    'random_features': {'num_ensemble': 3, 'width': 8},
    'vnn': {'num_index_samples': 3},
    'mixture_of_experts': {'num_experts': 3},
    **dict.fromkeys(('batch_ensemble', 'deep_sub_ensemble', 'ensemble',
                     'mean_variance_ensemble'), {'num_ensemble': 3})}


def make_config(name, **settings):
  tiny = {**({} if name in UNTRAINED else TINY), **FEW.get(name, {})}
  return agents_lib.make_config(agents_lib.load_agent(name),
                                {**tiny, **settings})


def make_agent(name, **settings):
  module = agents_lib.load_agent(name)
  return agents_lib.make_agent(module, make_config(name, **settings))


def predict(network, params, state, indices, x=X):
  """[J, 5, 1] by one program, in which the indices are what they are here."""
  return np.asarray(jax.jit(lambda params, state: base.get_predictions(
      base.apply_indices(network, params, state, x, indices)[0]))(
          params, state))


# Two seeds by two noise levels, for the batched path; [1, 1] is one problem.
DATA_X = RNG.standard_normal((2, 8, 2))
DATA_Y = RNG.standard_normal((2, 2, 8, 1))
NOISE_STDS = np.array([0.1, 1.])
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (1, 2)])
PRIOR = base.PriorKnowledge((2,), 8, base.Gaussian(1.), kernels.KernelConfig())
DATA = base.Data(DATA_X[1], DATA_Y[1, 1])
