"""What the matrix-free solver holds at most."""

from enn_ensembles.nngp import remainder


def estimate_memory_mb(num_train: int, input_dim: int, num_eval: int,
                       num_block_steps: int = 4, itemsize: int = 4) -> float:
  """Peak memory of `solve` in MB of 10^6 bytes, x_train included.

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
  # x_train, U and the points of the tiles; the basis and what is outside.
  columns = (8 * input_dim + 8 * first + itemsize * first
             + itemsize * (basis + max(first, width)))
  # The vectors of a pass, their product, and its sum on the device.
  columns += (16 + itemsize) * width
  # Columns of H, H and its factor; sides and solutions; what combines the rest.
  small = 8 * (2.5 * basis**2 + 4 * basis * width + 4 * (first + width)**2)
  tiles = 3 * itemsize * min(remainder.ACCELERATOR_TILE, num_train)**2
  return (num_train * columns + small + tiles) / 1e6
