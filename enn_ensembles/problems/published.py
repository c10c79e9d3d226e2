"""Published ground truth: what is expensive of large problems, in small files.

One file per (input_dim, data_ratio, seed) and solver holds f at x_train, x_val
and x_test, and per noise level the posterior: means, stds, weights, joint
covariances, and how exact they are. x is made again from its seed. A file is
one of `machine.array_files`, with arrays compressed without loss: the bytes of
the same place of all numbers side by side, then zlib; of symmetric matrices one
triangle.

A file is used where it is of the same problem, of the same versions of kernel,
draws and solver, and of the same draws. Where it is not, one warning names what
is different, and the problem is computed.
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import os
import pathlib
from typing import NamedTuple
import zlib

from absl import logging
import numpy as np

from enn_ensembles.machine import array_files
from enn_ensembles.machine import canonical
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import draws
from enn_ensembles.problems import nngp_regression

# Of these files; kernels, draws and solvers have versions of their own.
FORMAT_VERSION = 1
# Problems with fewer training points are made within a second.
MIN_NUM_TRAIN = 10_000
# Where files are looked for; empty for nowhere. Default: `ground_truth` beside
# the package, as in the repository.
ENVIRONMENT_VARIABLE = 'ENN_ENSEMBLES_GROUND_TRUTH'

# Of the two solvers: a change of what they compute raises one.
SOLVER_VERSIONS = {'dense': 1, 'matrix_free': 2}

# What is said once.
_COMPLAINTS: set[pathlib.Path] = set()


class Published(NamedTuple):
  """What a file holds.

  Attributes:
    function: f by the names of `problems.ground_truth`: 'function' [T],
      'val_function', 'test_function'.
    solved: the posterior per noise_std.
  """
  function: Mapping[str, np.ndarray]
  solved: Mapping[float, nngp_regression.Solved]


class Written(NamedTuple):
  """A file that was written.

  Attributes:
    path: where.
    sizes: bytes of each part over all noise levels: compressed, and as it is.
  """
  path: pathlib.Path
  sizes: Mapping[str, tuple[int, int]]

  def __str__(self) -> str:
    """'D2_l3_s0_bayes.truth, kB of kB: function 74 of 80, ...'."""
    parts = ', '.join(f'{part} {small / 1e3:.0f} of {large / 1e3:.0f}'
                      for part, (small, large) in self.sizes.items())
    small, large = (sum(values) / 1e3 for values in zip(*self.sizes.values()))
    return (f'{self.path.name}, {small:.0f} of {large:.0f} kB: {parts}')


def folder() -> pathlib.Path | None:
  """Where published ground truth is; None where there is none.

  Raises:
    ValueError: the environment variable names no folder.
  """
  named = os.environ.get(ENVIRONMENT_VARIABLE)
  if named is not None:
    path = pathlib.Path(os.path.expanduser(named))
    if named and not path.is_dir():
      raise ValueError(f'{ENVIRONMENT_VARIABLE} must be a folder, got '
                       f'{named!r}, which is none.')
    return path if named else None
  path = pathlib.Path(__file__).parents[2] / 'ground_truth'
  return path if path.is_dir() else None


def write(path: pathlib.Path, config: nngp_regression.ProblemConfig,
          solver: str, inputs: str, published: Published) -> Written:
  """Writes the file of a problem's noise levels, whole or not at all.

  Args:
    path: the folder; it exists.
    config: of any of the noise levels.
    solver: 'dense' or 'matrix_free'.
    inputs: a checksum of x and of the normals that f was drawn from.
    published: what it is to hold.

  Returns:
    The file, and what its parts take.

  Raises:
    FileError: it cannot be written.
  """
  arrays, shapes, truths = {}, {}, {}
  sizes: dict[str, tuple[int, int]] = {}

  def add(name: str, array: np.ndarray) -> None:
    shapes[name] = list(array.shape)
    arrays[name] = np.frombuffer(_compress(array), np.uint8)
    part = name.removeprefix(f'{level}.')
    small, large = sizes.get(part, (0, 0))
    sizes[part] = small + arrays[name].nbytes, large + array.nbytes

  level = ''

  for name, array in published.function.items():
    add(name, array)
  for noise_std, solved in published.solved.items():
    moments, level = solved.moments, _level(noise_std)
    truths[level] = dataclasses.asdict(solved.ground_truth)
    assert moments.covariances is not None and moments.weights is not None
    for name in ('mean', 'std', 'weights', 'covariances'):
      add(f'{level}.{name}', getattr(moments, name))
    if moments.joint is not None:
      for name, array in moments.joint._asdict().items():
        add(f'{level}.joint.{name}', array)
  file = path / file_name(config, solver)
  array_files.write(file, _identity(config, solver), arrays,
                    {'inputs': inputs, 'shapes': shapes,
                     'ground_truth': truths})
  return Written(file, sizes)


def read(path: pathlib.Path, config: nngp_regression.ProblemConfig,
         solver: str, inputs: str) -> Published | None:
  """What is published of a problem's noise levels; None if it cannot be used.

  Says in one warning why a file that exists is not used. Arguments are those of
  `write`.

  Raises:
    ValueError: the file exists and cannot be read.
  """
  file = path / file_name(config, solver)
  identity = _identity(config, solver)
  found = array_files.read_or_say_why(
      file, identity, inputs, f'published ground truth {file}',
      functools.partial(_difference, expected=identity))
  if isinstance(found, array_files.Contents):
    return _unpack(found)
  if found is not None:
    complain(file, found)
  return None


def complain(file: pathlib.Path, reason: str) -> None:
  """Says once per file why it is not used."""
  if file not in _COMPLAINTS:
    logging.warning('published ground truth %s is not used: %s.', file, reason)
  _COMPLAINTS.add(file)


def file_name(config: nngp_regression.ProblemConfig, solver: str) -> str:
  """The file of a problem's noise levels."""
  return (f'D{config.input_dim}_l{nngp_regression.number(config.data_ratio)}'
          f'_s{config.seed}_{config.reference}{config.settings_suffix}'
          f'{nngp_regression.SOLVER_SUFFIX[solver]}.truth')


def _identity(config: nngp_regression.ProblemConfig, solver: str) -> str:
  """What a file is of, noise levels aside, and the versions that made it."""
  return canonical.canonical_json({
      'kind': 'published ground truth',
      'problem': canonical.named_fields(config, without=('noise_std',)),
      'solver': solver,
      'constants': {
          'jitter': posterior.SAMPLE_JITTER,
          'kernel_ridge': posterior.KERNEL_RIDGE,
          'joint_tau': nngp_regression.JOINT_TAU,
          'num_dyadic_blocks': nngp_regression.NUM_DYADIC_BLOCKS,
          'dyadic_cosine': nngp_regression.DYADIC_COSINE},
      'versions': {
          'format': FORMAT_VERSION, 'kernel': kernels.VERSION,
          'draws': draws.VERSION, 'solver': SOLVER_VERSIONS[solver]}})


def _difference(found: str, expected: str) -> str:
  """What of an identity is different, by name."""
  try:
    theirs, ours = json.loads(found), json.loads(expected)
    versions = [
        f'its {name} has version {theirs["versions"].get(name)}, this program '
        f'has {version}' for name, version in ours['versions'].items()
        if theirs['versions'].get(name) != version]
    others = [f'it has another {name}' for name in ('problem', 'constants',
                                                    'solver', 'kind')
              if theirs.get(name) != ours[name]]
  except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
    return 'its header is damaged'
  return ', '.join(versions + others)


def _level(noise_std: float) -> str:
  return f'e{nngp_regression.number(noise_std)}'


def _unpack(contents: array_files.Contents) -> Published:
  shapes = contents.info['shapes']

  @functools.cache
  def get(name: str) -> np.ndarray:
    return _decompress(contents.arrays[name].tobytes(), shapes[name])

  solved = {}
  for level, truth in contents.info['ground_truth'].items():
    truth = nngp_regression.GroundTruth(**truth)
    joint = None
    if f'{level}.joint.mean' in shapes:
      joint = posterior.JointMoments(**{
          name: get(f'{level}.joint.{name}')
          for name in posterior.JointMoments._fields})
    solved[float(level[1:])] = nngp_regression.Solved(posterior.Moments(
        **{name: get(f'{level}.{name}')
           for name in ('mean', 'std', 'weights', 'covariances')},
        joint=joint, residual=truth.residual, mean_error=truth.mean_error,
        std_error=truth.std_error), truth)
  return Published({name: get(name) for name in shapes if '.' not in name
                    and name.endswith('function')}, solved)


def _compress(array: np.ndarray) -> bytes:
  """A float64 array without loss, symmetric matrices as triangles."""
  array = np.ascontiguousarray(array, '<f8')
  triangle = _is_symmetric(array)
  if triangle:
    array = array[..., *np.triu_indices(array.shape[-1])]
  # Exponents and signs are alike, mantissas are noise: they are kept apart.
  planes = np.ascontiguousarray(array.reshape(-1, 1).view(np.uint8).T)
  return bytes([triangle]) + zlib.compress(planes.tobytes(), 9)


def _decompress(data: bytes, shape: list[int]) -> np.ndarray:
  """Inverse of `_compress`."""
  planes = np.frombuffer(zlib.decompress(data[1:]), np.uint8)
  planes = planes.reshape(8, len(planes) // 8)
  numbers = np.ascontiguousarray(planes.T).view('<f8')[:, 0]
  if not data[0]:
    return numbers.reshape(shape).astype(np.float64)
  array = np.empty(shape)
  rows, columns = np.triu_indices(shape[-1])
  numbers = numbers.reshape(*shape[:-2], len(rows))
  array[..., rows, columns] = numbers
  array[..., columns, rows] = numbers
  return array


def _is_symmetric(array: np.ndarray) -> bool:
  return (array.ndim == 3 and array.shape[1] == array.shape[2]
          and np.array_equal(array, np.swapaxes(array, 1, 2)))
