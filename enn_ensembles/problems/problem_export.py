"""Problems as plain files, for agents in any language or framework.

Two files per problem, named by its id: `<problem_id>.npz` with float64 arrays
that numpy alone reads (no pickles), and `<problem_id>.json`, which says what
they are, their SHA-256 each, and how the posterior was computed. Score an agent
by the mean over x_test of KL(N(test_mean, (test_std + ridge)^2) || N(its mean,
(its std + ridge)^2)), with the ridge that the JSON names.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
from typing import Any

import numpy as np

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.machine import strict_json
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import nngp_regression
from enn_ensembles.scoring import gaussian

FORMAT_VERSION = 1

# Array -> what it is; what is written, in this order.
ARRAYS = {
    'x_train': 'training inputs [T, D]',
    'y_train': 'training targets [T, 1]',
    'x_test': 'test inputs [n, D]',
    'test_mean': 'posterior mean of the noise-free function at x_test [n]',
    'test_std': 'its std [n], sqrt(variance + kernel_ridge)',
    'test_covariances':
        'joint posterior covariances, kernel_ridge included, of '
        'neighbouring test points [n // tau, tau, tau]',
    'x_val': 'validation inputs [m, D]',
    'val_mean': 'posterior mean at x_val [m]',
    'val_std': 'its std [m]',
    'y_val': 'labels at x_val [m, 1], made like y_train',
    'y_test': 'labels at x_test [n, 1], made like y_train; for scoring only',
    'f_test': 'the function at x_test [n, 1], without noise; for scoring only',
    'x_dyadic':
        'dyadic inputs [num_blocks * tau, D]: of every tau neighbours the '
        'first half lies around one anchor, the rest around another',
    'dyadic_mean': 'posterior mean there [num_blocks, tau]',
    'dyadic_covariances':
        'joint posterior covariances there, kernel_ridge included '
        '[num_blocks, tau, tau]',
}


def export_problem(problem: nngp_regression.Problem,
                   folder: pathlib.Path) -> pathlib.Path:
  """Writes a problem's two files, each whole or not at all.

  Args:
    problem: the problem.
    folder: where to; it exists.

  Returns:
    The path of the .npz file; the .json file stands beside it.

  Raises:
    ValueError: a file cannot be written, or the noise depends on the input.
  """
  if np.ndim(problem.noise_std):
    raise ValueError('a problem that is exported must have one noise_std, got '
                     f'one per point of {problem.problem_id}.')
  arrays = {name: getattr(problem, name) for name in ARRAYS
            if getattr(problem, name) is not None}
  stream = io.BytesIO()
  np.savez(stream, **arrays)
  payload = stream.getvalue()
  metadata = {
      'project': results.PROJECT, 'format_version': FORMAT_VERSION,
      'problem_id': problem.problem_id,
      'input_dim': problem.x_train.shape[1], 'num_train': len(problem.x_train),
      'noise_std': problem.noise_std, 'reference': problem.reference,
      'kernel': dataclasses.asdict(problem.kernel),
      'seed': None if problem.config is None else problem.config.seed,
      'data_ratio': (None if problem.config is None
                     else problem.config.data_ratio),
      'kernel_ridge': posterior.KERNEL_RIDGE,
      'std_ridge': gaussian.STD_RIDGE, 'tau': nngp_regression.JOINT_TAU,
      'ground_truth': dataclasses.asdict(problem.ground_truth),
      'npz_sha256': hashlib.sha256(payload).hexdigest(),
      'arrays': {name: {'meaning': ARRAYS[name], 'shape': list(array.shape),
                        'dtype': 'float64', 'sha256': array_sha256(array)}
                 for name, array in arrays.items()}}
  path = folder / f'{problem.problem_id}.npz'
  files.write_atomically(path, payload)
  text = json.dumps(metadata, indent=2, allow_nan=False)
  files.write_atomically(path.with_suffix('.json'), (text + '\n').encode())
  return path


def read_export(path: pathlib.Path) -> tuple[dict[str, np.ndarray],
                                             dict[str, Any]]:
  """Reads a problem's two files back and checks them.

  Args:
    path: of either file.

  Returns:
    Arrays by name, and the metadata.

  Raises:
    ValueError: a file is missing, or is not what was written.
  """
  path = pathlib.Path(path)
  try:
    payload = files.read_bytes(path.with_suffix('.npz'))
    metadata = strict_json.parse(files.read_bytes(path.with_suffix('.json')))
  except (OSError, ValueError) as error:
    raise ValueError(f'exported problem {path} cannot be read: '
                     f'{error}.') from error
  if metadata.get('format_version') != FORMAT_VERSION:
    raise ValueError(
        f'exported problem {path} has format_version '
        f'{metadata.get("format_version")}, this program reads '
        f'{FORMAT_VERSION}.')
  if metadata.get('npz_sha256') != hashlib.sha256(payload).hexdigest():
    raise ValueError(f'exported problem {path.with_suffix(".npz")} does not '
                     'match its checksum: export it again.')
  with np.load(io.BytesIO(payload), allow_pickle=False) as file:
    return dict(file), metadata


def array_sha256(array: np.ndarray) -> str:
  """SHA-256 of an array [...] as little-endian float64, row by row, in hex."""
  return hashlib.sha256(
      np.ascontiguousarray(array, dtype='<f8')).hexdigest()
