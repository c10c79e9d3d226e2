"""What solvers of posteriors may hold, and what the matrix-free one holds."""

from enn_ensembles.nngp import tiles

# What a solver may hold unless it is told otherwise, MB of 10^6 bytes. It is
# the same on every machine: who chooses the dense or the matrix-free solver by
# it makes the same problem everywhere, and the two draw f in different ways.
DEFAULT_BUDGET_MB = 14_000.


def estimate_memory_mb(num_train: int, input_dim: int, num_eval: int,
                       num_block_steps: int = 4, itemsize: int = 4) -> float:
  """Peak memory of `solve` in MB of 10^6 bytes, x_train included.

  Kept tiles are not: they take what is left of the budget, and none is needed.

  Args:
    num_train: T.
    input_dim: D.
    num_eval: points of x_eval.
    num_block_steps: how many fit.
    itemsize: bytes of a number in a tile, 4 or 8.
  """
  first = min(num_train, input_dim + 2)
  width = min(num_train, num_eval + 8)
  basis = min(num_train, first + (num_block_steps - 1) * width)
  # The basis, its last block included; what is outside of it; a product. As
  # much as when a block is made: the block, what it is made from, the others.
  numbers = basis + first + (width if num_block_steps > 1 else first)
  # x_train, the points of the tiles, and vectors in float64: those of conjugate
  # gradients for a sample of the points.
  columns = 8 * input_dim + itemsize * (input_dim + 1 + numbers) + 8 * 350
  # Columns of H, H and its factor; sides and solutions; what combines the rest.
  small = 8 * (2.5 * basis**2 + 4 * basis * width + 4 * (first + width)**2)
  tile = tiles.tile_size(num_train)
  # Tiles at work, and a panel of vectors and products with each.
  work = itemsize * (4 * tile**2 + 4 * tile * max(first, width))
  return (num_train * columns + small + work) / 1e6
