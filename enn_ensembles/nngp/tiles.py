"""R of `remainder` as an operator on blocks of vectors, tile by tile.

Only tiles on and below the diagonal are made, and each serves twice. As many as
there is room for are kept: later passes read them instead of computing them.
The others are made again. Beyond 30,000 points tiles are rounded to float16 (a
pass over 100,000 points reads 10 GB), whether they are kept or not: how much
room there is does not change the operator. It is symmetric, and its diagonal is
exact. What the rounding moves is measured by whoever uses it; `apply_exactly`
leaves it out.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles.machine import allocation
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import remainder

# Side of the tiles. On a CPU a tile stays in the cache while it is used.
_CPU_TILE = 1024
ACCELERATOR_TILE = 4096
# Tiles that wait to be used, each with a panel of vectors, on a single device.
_QUEUE = 4
# In float16 a tile is multiplied by this: values of R are 1e-7 to 0.1.
_FLOAT16_SCALE = 2.**12
# Products of more columns are summed in the precision of the tiles: half of the
# memory, and what these sums round is less than what tiles do.
_MAX_FLOAT64_COLUMNS = 256


def tile_size(num_train: int) -> int:
  """Side of the tiles of T points: all panels are nearly as long."""
  size = _CPU_TILE if jax.default_backend() == 'cpu' else ACCELERATOR_TILE
  return -(-num_train // -(-num_train // size))


def all_tiles_mb(num_train: int, itemsize: int) -> float:
  """What all tiles on and below the diagonal take, in MB of 10^6 bytes."""
  size = tile_size(num_train)
  count = -(-num_train // size)
  return itemsize * size**2 * count * (count + 1) / 2 / 1e6


class Remainder:
  """R of the training points, as an operator on blocks of vectors.

  Tiles are spread over all devices.

  Args:
    split: the kernel's.
    x_train: [T, D].
  """

  def __init__(self, split: remainder.Split, x_train: np.ndarray):
    self._split = split
    self._panels = remainder.panels(len(x_train), tile_size(len(x_train)))
    self._length = self._panels[0].stop
    # The diagonal is R's largest part: kept apart, and exact.
    self.diagonal = kernels.nngp_diag(split.config, x_train)
    # Devices that are not the default are only used if there are several.
    self._devices = jax.local_devices()
    self._points = [[] for _ in self._devices]
    self._scales = [[] for _ in self._devices]
    for panel in self._panels:
      features = split.features(x_train[panel])
      self.diagonal[panel] -= np.einsum('tf,tf->t', features, features)
      z, scale = split.points(x_train[panel])
      z = self._padded(z.astype(split.dtype))
      # Where points are missing, tiles are 0.
      scale = self._padded(scale[:, None].astype(split.dtype))[:, 0]
      for points, scales, device in zip(self._points, self._scales,
                                        self._devices, strict=True):
        points.append(jax.device_put(z, device))
        scales.append(jax.device_put(scale, device))
    self._tile_mb = split.kept_dtype.itemsize * self._length**2 / 1e6
    self._room = 0  # How many tiles may be kept.
    # (row, column) of panels -> the tile.
    self._kept: dict[tuple[int, int], jax.Array] = {}
    self._make = jax.jit(self._make_tile,
                         static_argnames=('diagonal', 'exact'))
    self._use = jax.jit(_use_tile, donate_argnums=(0, 1))
    self._use_diagonal = jax.jit(_use_diagonal_tile, donate_argnums=0)

  @property
  def rounds(self) -> bool:
    """Whether tiles are rounded after they are made."""
    return self._split.kept_dtype != self._split.dtype

  def keep(self, room_mb: float) -> None:
    """Keeps what fits into so many MB; what is too much by now is let go."""
    self._room = max(int(room_mb / self._tile_mb), 0)
    while len(self._kept) > self._room:
      self._kept.popitem()

  @property
  def kept_mb(self) -> float:
    """What kept tiles take by now."""
    return self._tile_mb * len(self._kept)

  def apply(self, *blocks: np.ndarray) -> list[np.ndarray]:
    """R of each block [T, m]; wide blocks in the precision of the tiles."""
    return self._apply(blocks)[0]

  def apply_exactly(self, *blocks: np.ndarray) -> list[np.ndarray]:
    """The same with tiles that are not rounded after they are made."""
    return self._apply(blocks, exact=self.rounds)[0]

  def apply_and_survey(
      self, *blocks: np.ndarray
  ) -> tuple[list[np.ndarray], remainder.Survey | None]:
    """As `apply`, and what the pass has seen; None if it needs no survey."""
    return self._apply(blocks, survey=self._split.needs_survey)

  def _apply(self, blocks: Sequence[np.ndarray], survey: bool = False,
             exact: bool = False
             ) -> tuple[list[np.ndarray], remainder.Survey | None]:
    sums, founds = self._sum_tiles(blocks, survey, exact)
    products = [self._collect(sums, k, block)
                for k, block in enumerate(blocks)]
    allocation.return_freed()  # Panels: as much as the products.
    return products, self._merge(founds) if survey else None

  def _sum_tiles(self, blocks: Sequence[np.ndarray], survey: bool,
                 exact: bool) -> tuple[list[Any], list[Any]]:
    """Each device's sums per panel and block, and what it has seen."""
    vectors = [np.asarray(block, self._split.dtype) for block in blocks]
    sums, founds = [], []
    for device in self._devices:
      with jax.default_device(device):
        sums.append([[jnp.zeros((self._length, v.shape[1]), _sum_dtype(v))
                      for v in vectors] for _ in self._panels])
        founds.append([
            (jnp.zeros(()), jnp.zeros((len(remainder.SURVEY_POWERS),
                                       self._length)))
            if survey else None for _ in self._panels])
    for i, panel in enumerate(self._panels):
      number = i % len(self._devices)
      s, found = sums[number], founds[number]
      with jax.default_device(self._devices[number]):
        # The sum of a row of tiles is in their own precision until the row is
        # done: half of the memory traffic.
        row = [jnp.zeros((self._length, v.shape[1]), v.dtype) for v in vectors]
        own = [jnp.asarray(self._padded(v[panel])) for v in vectors]
        for j in range(i):
          tile, found[i], found[j] = self._tile(i, j, found[i], found[j], exact)
          row, s[j] = self._use(
              row, s[j], tile, own,
              [self._padded(v[self._panels[j]]) for v in vectors])
          if len(self._devices) == 1 and j % _QUEUE == 0:
            jax.block_until_ready(row)
        tile, found[i], _ = self._tile(i, i, found[i], None, exact)
        s[i] = self._use_diagonal(s[i], row, tile, own)
      if number == len(self._devices) - 1:
        jax.block_until_ready(sums)  # Keeps the queue short.
    return sums, founds

  def _collect(self, sums, k: int, block: np.ndarray) -> np.ndarray:
    """Takes the product of block k out of the sums of all devices."""
    result = np.empty(block.shape, sums[0][0][k].dtype)
    for i, panel in enumerate(self._panels):
      rows = panel.stop - panel.start
      result[panel] = sum(np.asarray(part[i][k])[:rows] for part in sums)
      for part in sums:
        part[i][k] = None
      result[panel] += self.diagonal[panel, None] * block[panel]
    return result

  def _tile(self, i: int, j: int, found1, found2, exact: bool):
    """A tile, and what is found in it: kept ones, or made now."""
    if not exact and found1 is None and (i, j) in self._kept:
      return self._kept[i, j], None, None
    number = i % len(self._devices)
    z, scale = self._points[number], self._scales[number]
    tile, found1, found2 = self._make(z[i], z[j], scale[i], scale[j], found1,
                                      found2, diagonal=i == j, exact=exact)
    if not exact and len(self._kept) < self._room:
      tile = self._kept[i, j] = _set_apart(tile)
    return tile, found1, found2

  def _make_tile(self, z1, z2, scale1, scale2, found1, found2, *,
                 diagonal: bool, exact: bool):
    """R between the points of two panels; 0 on its own diagonal."""
    k12 = jnp.dot(z1, z2.T, precision=jax.lax.Precision.HIGHEST)
    tile = self._split.tile(k12, z1, z2) * scale1[:, None] * scale2[None, :]
    if diagonal:
      # Exactly symmetric, whatever the product has rounded.
      lower = jnp.tril(tile, -1)
      tile = lower + lower.T
      k12 = jnp.where(jnp.eye(len(k12), dtype=bool), 0., k12)
    if self.rounds and not exact:
      tile = (tile * _FLOAT16_SCALE).astype(jnp.float16)
    found1 = _look(found1, k12, scale2)
    if not diagonal:
      found2 = _look(found2, k12.T, scale1)
    return tile, found1, found2

  def _padded(self, rows: np.ndarray) -> np.ndarray:
    missing = self._length - len(rows)
    return np.pad(rows, ((0, missing), (0, 0))) if missing else rows

  def _merge(self, founds) -> remainder.Survey:
    """What all devices have seen of all panels."""
    largest = max(float(found[0]) for part in founds for found in part)
    sums = np.concatenate([
        sum(np.asarray(part[i][1]) for part in founds)
        for i, _ in enumerate(self._panels)], axis=1)
    # Sums are of positive terms: what float32 rounds is less.
    return remainder.Survey(largest + remainder.COSINE_ERROR,
                            1.001 * sums[:, :len(self.diagonal)])


def _set_apart(tile: jax.Array) -> jax.Array:
  """A tile that stays, away from the arrays that come and go."""
  if jax.default_backend() != 'cpu' or jax.device_count() > 1:
    return tile
  return jax.dlpack.from_dlpack(allocation.in_own_pages(np.asarray(tile)))


def _sum_dtype(vectors: np.ndarray) -> np.dtype:
  wide = vectors.shape[1] > _MAX_FLOAT64_COLUMNS
  return vectors.dtype if wide else np.dtype(np.float64)


def _use_tile(row, sums, tile, own, others):
  """row += tile others and sums += tile^T own, of each block of vectors."""
  tile = _opened(tile)
  return ([total + _dot(tile, q) for total, q in zip(row, others)],
          [total + _dot(tile.T, q) for total, q in zip(sums, own)])


def _use_diagonal_tile(sums, row, tile, own):
  """sums += row + tile own: what a row of tiles adds to its own points."""
  tile = _opened(tile)
  return [total + part + _dot(tile, q)
          for total, part, q in zip(sums, row, own)]


def _opened(tile: jax.Array) -> jax.Array:
  """In the precision of products."""
  if tile.dtype == jnp.float16:
    return tile.astype(jnp.float32) * (1 / _FLOAT16_SCALE)
  return tile


def _dot(tile: jax.Array, vectors: jax.Array) -> jax.Array:
  return jnp.dot(tile, vectors, precision=jax.lax.Precision.HIGHEST)


def _look(found, rho: jax.Array, scale: jax.Array):
  """Adds a tile of cosines to what a survey has found; None stays None."""
  if found is None:
    return None
  largest, sums = found
  return (jnp.maximum(largest, jnp.max(jnp.abs(rho))),
          sums + jnp.stack([rho**power @ scale
                            for power in remainder.SURVEY_POWERS]))
