"""Additive prior functions: a fixed random network beside the trained one."""

from collections.abc import Callable

import jax

from enn_ensembles import base
from enn_ensembles import outputs
from enn_ensembles.networks import bodies

_NETWORK_KEY, _PRIOR_KEY = 0, 1  # fold_in constants of `with_additive_prior`.


def with_additive_prior(network: base.EpistemicNetwork,
                        prior_network: base.EpistemicNetwork,
                        prior_scale: float) -> base.EpistemicNetwork:
  """f(x, z) + prior_scale * p(x, z): randomized prior functions.

  p is drawn when the network is initialised and never trained; its parameters
  live in the state. Osband et al. 2018, "Randomized prior functions for deep
  reinforcement learning" (arXiv 1806.03335).

  Args:
    network: the trained part; its output is a plain array.
    prior_network: the untrained part, on the same index.
    prior_scale: weight of the prior; 0 gives the network back as it is.

  Returns:
    A network whose output is an `OutputWithPrior`.
  """
  if prior_scale == 0:
    return network

  def init(key, x, z):
    params, state = network.init(jax.random.fold_in(key, _NETWORK_KEY), x, z)
    prior_params, prior_state = prior_network.init(
        jax.random.fold_in(key, _PRIOR_KEY), x, z)
    return params, {'network': state, 'prior_params': prior_params,
                    'prior_state': prior_state}

  def add(state, train, network_state, prior):
    out = outputs.make_output(train, prior_scale * jax.lax.stop_gradient(prior))
    return out, {**state, 'network': network_state}

  def apply(params, state, x, z):
    train, network_state = network.apply(params, state['network'], x, z)
    prior, _ = prior_network.apply(state['prior_params'], state['prior_state'],
                                   x, z)
    return add(state, train, network_state, prior)

  def shared(params, state, x):
    return (base.get_shared(network, params, state['network'], x),
            base.get_shared(prior_network, state['prior_params'],
                            state['prior_state'], x))

  def apply_indices(params, state, x, indices, shared=(None, None)):
    train, network_state = base.apply_indices(
        network, params, state['network'], x, indices, shared[0])
    prior, _ = base.apply_indices(
        prior_network, state['prior_params'], state['prior_state'], x, indices,
        shared[1])
    return add(state, train, network_state, prior)

  def apply_train(params, state, x, indices, key):
    assert network.apply_train is not None
    train, network_state = network.apply_train(
        params, state['network'], x, indices, key)
    prior, _ = base.apply_indices(
        prior_network, state['prior_params'], state['prior_state'], x, indices)
    return add(state, train, network_state, prior)

  return base.EpistemicNetwork(
      apply=apply, init=init, indexer=network.indexer,
      apply_indices=apply_indices, shared=shared,
      apply_train=None if network.apply_train is None else apply_train,
      member_weights=getattr(network, 'member_weights', None))


def with_body_prior(make: Callable[[bodies.Body], base.EpistemicNetwork],
                    body: bodies.Body,
                    prior_scale: float) -> base.EpistemicNetwork:
  """A network of a body, with an untrained one of the same body as its prior.

  The prior's body has group norms for batch norms: `bodies.without_statistics`.

  Args:
    make: the network of a body.
    body: one member.
    prior_scale: weight of the prior; 0 is none, see `with_additive_prior`.
  """
  return with_additive_prior(
      make(body), make(bodies.without_statistics(body)), prior_scale)
