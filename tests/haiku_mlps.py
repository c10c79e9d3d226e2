"""Haiku's own MLPs, and networks of agents that have the same weights."""

import haiku as hk
import jax
import numpy as np
from tiny_agents import predict
from tiny_agents import X

from enn_ensembles.agents import layer_ensemble

RNG = np.random.default_rng(1)
HIDDEN = (4, 3)


def random_mlp(num=1):
  """Layers [num, out, in + 1] of MLPs from 2 inputs over HIDDEN to 1."""
  sizes = (2, *HIDDEN, 1)
  return [RNG.standard_normal((num, out, size + 1))
          for size, out in zip(sizes, sizes[1:])]


def haiku_mlp(layers, member=0, x=X):
  """The same network as Haiku's own MLP: the truth of all limiting cases."""
  params = {f'mlp/~/linear_{i}': {'w': w[member, :, :-1].T,
                                  'b': w[member, :, -1]}
            for i, w in enumerate(layers)}
  return np.asarray(_MLP(params, x))


_MLP = jax.jit(hk.without_apply_rng(hk.transform(
    lambda x: hk.nets.MLP((*HIDDEN, 1))(x))).apply)


def name_layers(module, layers):
  return {module: {f'w_{i}': w for i, w in enumerate(layers)}}


def check_equal(network, params, state, indices, expected):
  np.testing.assert_allclose(predict(network, params, state, indices),
                             expected, rtol=1e-6, atol=1e-7)


def make_stack(num_options, prior_scale=0.):
  return layer_ensemble.make_network(layer_ensemble.LayerEnsembleConfig(
      num_options=num_options, hidden_sizes=HIDDEN, prior_scale=prior_scale))


def to_stack(layers):
  """[K, out, in + 1] of members to [out, K, in + 1] of options."""
  return name_layers('layer_stack', [np.swapaxes(w, 0, 1) for w in layers])
