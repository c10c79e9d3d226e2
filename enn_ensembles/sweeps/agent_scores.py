"""Scores of a trained agent itself, whatever the problem is."""

import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import diversity
from enn_ensembles.scoring import prediction_counts


def score_members(network: base.EpistemicNetwork, params: base.Params,
                  input_shape: tuple[int, ...]) -> dict[str, float]:
  """How alike the weights of members are.

  Args:
    network: ours or DeepMind's.
    params: trained on one problem.
    input_shape: of one example.

  Returns:
    'weight_cosine' and 'weight_cosine_biases', see `scoring.table`; empty
    where the index picks no member, there is one, or weights are 0 or not
    finite.
  """
  member_weights = getattr(network, 'member_weights', None)
  if member_weights is None:
    return {}
  weights, biases = member_weights(params, input_shape)
  if len(weights) < 2:
    return {}
  pairs = diversity.member_pairs(len(weights), diversity.MAX_PAIRS)
  found = {
      name: float(np.mean(diversity.cosine(np.asarray(vectors), pairs)))
      for name, vectors in (
          ('weight_cosine', weights),
          ('weight_cosine_biases', jnp.concatenate([weights, biases],
                                                   axis=1)))}
  return {name: value for name, value in found.items() if np.isfinite(value)}


def compare_members(network: base.EpistemicNetwork, params: base.Params,
                    input_shape: tuple[int, ...]) -> prediction_counts.Counts:
  """'weight_cosine', the cosine of every two members' weights, [K, K].

  Args:
    network: ours or DeepMind's.
    params: trained on one problem.
    input_shape: of one example.

  Returns:
    Of the first `prediction_counts.MAX_MEMBERS` members, biases left out; empty
    as in `score_members`.
  """
  member_weights = getattr(network, 'member_weights', None)
  if member_weights is None:
    return {}
  weights = np.asarray(member_weights(params, input_shape)[0], np.float64)
  weights = weights[:prediction_counts.MAX_MEMBERS]
  if len(weights) < 2:
    return {}
  cosines = diversity.cosine_matrix(weights)
  if not np.isfinite(cosines).all():  # Of weights that are not, or all 0.
    return {}
  return {'weight_cosine': cosines.tolist()}
