"""Classification of real images.

A family is one data set with a size of its training set. Its seeds draw the
validation set, and the training set where that is not all; they share the test
sets. The checksum of the data keeps results on other bytes apart.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import os
import re
from typing import Any

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.machine import canonical
from enn_ensembles.problems import image_classification
from enn_ensembles.problems import image_files
from enn_ensembles.problems import kinds


def _check_names(name: str, value: Any) -> None:
  if not isinstance(value, tuple):
    raise ValueError(f'{name} must be a list, got {value!r}.')


def _check_optional_count(name: str, value: Any) -> None:
  if value != 0:
    checks.check_count(name, value)


def _check_text(name: str, value: Any) -> None:
  if not isinstance(value, str):
    raise ValueError(f'{name} must be a text, got {value!r}.')


def _check_dataset(name: str, value: Any) -> None:
  _check_text(name, value)
  image_files.check_name(name, value)


CONFIG_NAMES: Mapping[str, kinds.ConfigName] = {
    'DATASET': kinds.ConfigName(_check_dataset),
    # 0 is all that validation leaves.
    'NUM_TRAIN': kinds.ConfigName(_check_optional_count, default=(0,)),
    # 0 is a tenth of the training set.
    'NUM_VAL': kinds.ConfigName(_check_optional_count, False, 0),
    # 0 is all.
    'NUM_TEST': kinds.ConfigName(_check_optional_count, False, 0),
    'HELD_OUT': kinds.ConfigName(_check_names, False, ()),
    'SHIFTS': kinds.ConfigName(_check_names, False, ()),
    'OOD': kinds.ConfigName(_check_names, False, ()),
    'OOD_JPEG': kinds.ConfigName(_check_optional_count, False, 0),
    'LABEL': kinds.ConfigName(_check_text, False, ''),
    'PAD': kinds.ConfigName(
        lambda name, value: checks.check_count(name, value, minimum=0),
        False, 0),
    'FLIP': kinds.ConfigName(checks.check_flag, False, False),
    'BRIGHTNESS': kinds.ConfigName(checks.check_scale, False, 0.),
    'NORMALISE': kinds.ConfigName(checks.check_flag, False, True),
}


@dataclasses.dataclass(frozen=True)
class ImageFamily:
  """One data set and size of its training set; see `kinds.Family`.

  Attributes:
    config: names the problems, but for their seed.
  """
  config: image_classification.ImageProblemConfig

  kind = 'images'
  score_set = 'classification'

  @property
  def cells(self) -> tuple[dict[str, Any], ...]:
    """One cell: the data and how many of them are learnt from."""
    return ({'dataset': self.config.name, 'num_train': self.num_train},)

  @functools.cached_property
  def ranking(self) -> dict[str, Any]:
    """The checksum of the data, and a hash of how they are used."""
    return {'dataset': self.config.name,
            'data_sha256': self._first.sha256[:16],
            'settings': canonical.config_hash(canonical.named_fields(
                self.config, without=('seed', 'num_train')))}

  @property
  def name(self) -> str:
    """As 'mnist_n54000_1a2b3c4d5e'."""
    return (f'{self.config.name}_n{self.num_train}_'
            f'{canonical.config_hash(self.ranking)}')

  @property
  def _first(self) -> image_classification.ImageClassificationProblem:
    return _make(self.config, _data_dir())

  @property
  def input_shape(self) -> tuple[int, ...]:
    """(height, width, channels)."""
    return self._first.train.shape

  @property
  def num_train(self) -> int:
    """T."""
    return len(self._first.train)

  def prior(self) -> base.PriorKnowledge:
    """What agents are told."""
    return self._first.prior

  def facts(self) -> dict[str, Any]:
    """How many images there are, and the settings in words."""
    first, config = self._first, self.config
    return {
        'num_val': 0 if first.val is None else len(first.val),
        'num_test': len(first.test), 'shifts': ' '.join(config.shifts),
        'ood': ' '.join(config.ood),
        'held_out': ' '.join(map(str, config.held_out)),
        **({} if config.normalise else {'normalise': False})}

  def problem_id(self, cell: Mapping[str, Any], seed: int) -> str:
    """As 'mnist_s0_0123456789'."""
    del cell  # There is one.
    return dataclasses.replace(self.config, seed=seed).problem_id(
        self._first.sha256)

  def narrow(self, cells: Sequence[Mapping[str, Any]]) -> 'ImageFamily':
    """Itself: it has one cell."""
    del cells
    return self

  def check(self, settings: kinds.ProblemSettings) -> None:
    """ValueError where a file is missing, or sets do not fit together."""
    _make(self.config, settings.data_dir or _data_dir())

  def make(self, seed: int, settings: kinds.ProblemSettings
           ) -> Sequence[image_classification.ImageClassificationProblem]:
    """The problem of a seed."""
    made = _make(dataclasses.replace(self.config, seed=seed),
                 settings.data_dir or _data_dir())
    # The float inputs that a problem keeps take four times its images: those of
    # this copy go with the unit that asked for it.
    return [dataclasses.replace(made)]


def _data_dir() -> str | None:
  return os.environ.get(image_files.ENVIRONMENT_VARIABLE)


# Reading and splitting 60,000 images takes a second; units share the problems.
@functools.lru_cache(maxsize=4)
def _make(config: image_classification.ImageProblemConfig,
          data_dir: str | None
          ) -> image_classification.ImageClassificationProblem:
  return image_classification.make_image_problem(config, data_dir)


def make_families(values: Mapping[str, Any]) -> list[ImageFamily]:
  """A family per data set and size of its training set."""
  _make.cache_clear()  # Files may have changed since another sweep.
  return [
      ImageFamily(image_classification.ImageProblemConfig(
          dataset, num_train=num_train or None,
          num_val=values['num_val'] or None,
          num_test=values['num_test'] or None,
          held_out=tuple(values['held_out']), shifts=tuple(values['shifts']),
          ood=tuple(values['ood']), ood_jpeg=values['ood_jpeg'] or None,
          label=values['label'] or None, pad=values['pad'],
          flip=values['flip'], brightness=values['brightness'],
          normalise=values['normalise']))
      for dataset in values['dataset'] for num_train in values['num_train']]


# As `ImageProblemConfig.problem_id` writes them; the hash may be left out.
_PROBLEM_ID = re.compile(r'(?P<name>.+)_s(?P<seed>\d+)(_[0-9a-f]{10})?')


def parse_problem_id(problem_id: str, settings: kinds.ProblemSettings,
                     values: Mapping[str, Any]
                     ) -> tuple[ImageFamily, int] | None:
  """The family of one problem and its seed, from the problem's id.

  Args:
    problem_id: as 'digits_s0_0123456789', which has a hash of the settings and
      of the data; or as 'digits_s0'.
    settings: where the data are.
    values: settings of `ImageProblemConfig` that are not the default; `dataset`
      where the id has a label in its place.

  Returns:
    A family and the seed; None where there is no such data set.

  Raises:
    ValueError: the problem of these settings has another id, or a value is not
      allowed.
  """
  found = _PROBLEM_ID.fullmatch(problem_id)
  if found is None:
    return None
  values = {'dataset': found['name'], **values}
  if values['dataset'] == found['name']:
    try:
      image_files.check_name('dataset', values['dataset'])
    except ValueError:
      return None
  known = [field.name for field in dataclasses.fields(
      image_classification.ImageProblemConfig) if field.name != 'seed']
  if not set(values) <= set(known):
    raise ValueError(f'settings of image problems are {", ".join(known)}; got '
                     f'{", ".join(sorted(values))}.')
  config = image_classification.ImageProblemConfig(
      **{name: tuple(value) if isinstance(value, list) else value
         for name, value in values.items()}, seed=int(found['seed']))
  if found['name'] not in (config.name, config.dataset):
    raise ValueError(f'problem_id {problem_id!r} is of {found["name"]}, its '
                     f'settings of {config.name}.')
  _make.cache_clear()  # Files may have changed since they were read.
  made = _make(config, settings.data_dir or _data_dir()).problem_id
  if found[3] and made != problem_id:
    raise ValueError(
        f'the problem of these settings and data is {made!r}, not '
        f'{problem_id!r}: give those settings of its sweep that are not the '
        'default, as num_train=1000.')
  return ImageFamily(dataclasses.replace(config, seed=0)), config.seed
