"""Shifted test sets by their names: our corruptions, and corrupted files.

A shift is 'NAME' or 'NAME:SEVERITY' of `corruptions.SEVERITIES`, which changes
the test images; or 'cifar10_c', 'mnist_c', or one of them with ':CORRUPTION',
which are files.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import os

from enn_ensembles import checks
from enn_ensembles.machine import bounded_cache
from enn_ensembles.problems import corruptions
from enn_ensembles.problems import image_data
from enn_ensembles.problems import image_files

# Of shifted images that are kept: all of ours of MNIST's test images take 430
# MB at 51 sets, of 2,000 images of CIFAR-10 310 MB.
_MAX_KEPT_BYTES = 450_000_000


def check_shifts(shifts: Sequence[str]) -> None:
  """`shifts` name shifts, none of which is part of another one.

  Raises:
    ValueError: they do not.
  """
  for shift in shifts:
    _check_shift(shift)
    whole = shift.partition(':')[0]
    if shift != whole and whole in shifts:
      raise ValueError(f'shifts must not have {shift!r} beside {whole!r}, '
                       'which contains it.')


def _check_shift(shift: str) -> None:
  name, *rest = shift.split(':') if isinstance(shift, str) else [shift]
  checks.check_choice('every entry of shifts', name,
                      (*corruptions.SEVERITIES, *image_files.CORRUPTED_SETS))
  if name in corruptions.SEVERITIES and rest:
    allowed = [str(i + 1) for i in range(len(corruptions.SEVERITIES[name]))]
    checks.check_choice(f'severity of {name}', ':'.join(rest), allowed)
  elif rest and (len(rest) > 1 or not rest[0].replace('_', '').isalnum()):
    raise ValueError(f'every entry of shifts must name one corruption behind '
                     f'{name}:, got {shift!r}.')


def our_shifts(shifts: Sequence[str]) -> Iterator[tuple[str, int]]:
  """(corruption, severity) of all shifted sets that are made."""
  for shift in shifts:
    name, _, severity = shift.partition(':')
    levels = len(corruptions.SEVERITIES.get(name, ()))  # 0: from a file.
    for level in range(1, levels + 1):
      if severity in ('', str(level)):
        yield name, level


def file_shifts(shifts: Sequence[str], data_dir: str | os.PathLike | None
                ) -> Iterator[image_data.ImageData]:
  """Shifted sets that are read, one file after the other.

  Raises:
    ValueError: a file is missing or damaged.
  """
  for shift in shifts:
    name, _, corruption = shift.partition(':')
    if name in image_files.CORRUPTED_SETS:
      wanted = ([corruption] if corruption
                else image_files.corruptions_in(name, data_dir))
      for one in wanted:
        yield from image_files.read_corrupted(name, one, data_dir)


# Shifted versions of one image set, on which every agent is scored.
_kept = bounded_cache.BoundedCache(_MAX_KEPT_BYTES)


def make_shifted(data: image_data.ImageData, corruption: str, severity: int,
                 seed: int) -> image_data.ImageData:
  """As `corruptions.corrupt`, or what that gave before."""
  _kept.use_for(data.sha256)
  return _kept.get(
      (corruption, severity, seed),
      lambda: corruptions.corrupt(data, corruption, severity, seed),
      lambda made: made.images.nbytes)
