"""Tall matrices, a panel of rows at a time: products and orthonormal bases."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import remainder

# A direction that is this much shorter than the longest of its block is noise.
# Much larger values (1e-5) can discard directions that matter.
_DROP = 1e-7
# Rows of tall matrices that are worked on at a time.
PANEL = 4096


def inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
  """left^T right [a, b] of left [T, a] and right [T, b].

  A panel is in the wider of their types, the sum of panels in float64.
  """
  total = np.zeros((left.shape[1], right.shape[1]))
  for panel in remainder.panels(len(left), PANEL):
    total += left[panel].T @ right[panel]
  return total


def gram(parts: Sequence[np.ndarray], scales: np.ndarray) -> np.ndarray:
  """[parts]^T diag(scales^2) [parts] of columns side by side, float64.

  Products of a panel are in the wider type of parts and scales.
  """
  total = 0.
  for panel in remainder.panels(len(scales), PANEL):
    rows = np.concatenate([part[panel] for part in parts], 1) * (
        scales[panel, None])
    total = total + (rows.T @ rows).astype(np.float64)
  return total


def times(parts: Sequence[np.ndarray], weights: np.ndarray,
          in_place: bool = False) -> np.ndarray:
  """[parts] @ weights of columns side by side, in the type of the parts.

  Args:
    parts: [T, m_i] each.
    weights: [sum of m_i, m].
    in_place: whether the result may take the place of a part that is as wide.
  """
  weights = weights.astype(parts[0].dtype)
  shape = (len(parts[0]), weights.shape[1])
  places = [part for part in parts if in_place and part.shape == shape]
  result = places[0] if places else np.empty(shape, weights.dtype)
  for panel in remainder.panels(len(result), PANEL):
    rows = np.concatenate([part[panel] for part in parts], 1)
    np.matmul(rows, weights, out=result[panel])
  return result


def orthonormalise(vectors: np.ndarray,
                   basis: Sequence[np.ndarray]) -> np.ndarray:
  """An orthonormal basis of what `vectors` add to `basis`, [T, rank].

  Args:
    vectors: [T, m], orthogonal to the basis but for rounding errors;
      overwritten.
    basis: blocks with orthonormal columns.
  """
  norms = np.sqrt(np.einsum('tm,tm->m', vectors, vectors, dtype=np.float64))
  vectors *= (1 / np.where(norms > 0, norms, 1.)).astype(vectors.dtype)
  ones = np.ones(len(vectors))
  # Short directions are made long, and errors with them: hence twice. What then
  # loses more than half of its length was an error, not a direction.
  for repeat, drop in enumerate((_DROP, 0.5)):
    if repeat:
      subtract(vectors, basis, [inner(block, vectors) for block in basis])
    values, directions = scipy.linalg.eigh(gram([vectors], ones))
    kept = values > drop**2 * max(values[-1], np.finfo(np.float64).tiny)
    weights = (directions[:, kept] / np.sqrt(values[kept])).astype(
        vectors.dtype)
    for panel in remainder.panels(len(vectors), PANEL):
      vectors[panel, :weights.shape[1]] = vectors[panel] @ weights
    vectors = vectors[:, :weights.shape[1]]
    if not vectors.shape[1]:
      break
  return np.ascontiguousarray(vectors)


def subtract(vectors: np.ndarray, basis: Sequence[np.ndarray],
             coefficients: Sequence[np.ndarray]) -> None:
  """vectors [T, b] -= Q coefficients, in place and block by block.

  Args:
    vectors: is changed.
    basis: blocks of Q, [T, b_j] each.
    coefficients: [b_j, b] each.
  """
  for block, part in zip(basis, coefficients, strict=True):
    part = part.astype(block.dtype)
    for panel in remainder.panels(len(vectors), PANEL):
      vectors[panel] -= block[panel] @ part
