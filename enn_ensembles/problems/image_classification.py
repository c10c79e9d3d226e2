"""Classification of images: what names a problem, what it holds, its scores.

A problem has a training set, a validation set out of the training set (never
out of the test set), a test set, shifted test sets and sets of other images
(out of distribution). All are normalised by the mean and the std of the
training set, or left as values from 0 to 1.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
import itertools
import os

import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.machine import canonical
from enn_ensembles.problems import corruptions
from enn_ensembles.problems import draws
from enn_ensembles.problems import image_data
from enn_ensembles.problems import image_files
from enn_ensembles.problems import image_splits
from enn_ensembles.problems import shifted_sets
from enn_ensembles.scoring import aggregation
from enn_ensembles.scoring import array_checks
from enn_ensembles.scoring import classification_scores
from enn_ensembles.scoring import prediction_counts
from enn_ensembles.training import augmentation

# Sets of other images that are made from the test set.
HELD_OUT = 'held_out'
MADE_OOD_SETS = (HELD_OUT, 'permuted', 'quarter_turn')

_NUM_PROBES = 20  # Images of each of our shifts whose bytes are in checksums.


@dataclasses.dataclass(frozen=True)
class ImageProblemConfig:
  """Names one problem; with the checksum of its data it is its identity.

  Attributes:
    dataset: a name that `image_files.read_images` knows: 'digits', which needs
      no file, 'mnist', 'cifar10', 'npz:NAME', ...
    num_train: training images, drawn by the seed; None for all that validation
      leaves.
    num_val: validation images out of the training set, drawn by the seed; 0
      for none, None for a tenth.
    num_test: test images and images of every other set, at most; the same for
      all seeds. None for all.
    seed: which draw of the validation set and of the training set.
    held_out: classes that are in no training, validation or test set; the
      others are numbered anew. The test images of these classes are the set
      'held_out' of `ood`.
    shifts: shifted test sets, as `shifted_sets` names them: 'rotation',
      'jpeg:5', 'cifar10_c', 'cifar10_c:fog', ...
    ood: sets of other images: 'held_out', 'permuted' (one permutation of all
      pixels), 'quarter_turn', or the test images of a data set.
    ood_jpeg: quality of JPEG by which images of `ood` are compressed first,
      where those of `dataset` once were: what compression leaves behind must
      not tell them apart. None for as they are.
    label: what tables call the data, if not `dataset`: files in the format of
      a data set need not hold its very images.
    pad: training images move by up to so many pixels in each direction.
    flip: whether half of the training images are mirrored.
    brightness: largest change of the brightness of training images, of 1.
    normalise: whether inputs are normalised by each channel's mean and std over
      the training set; else they are from 0 to 1, x / 255 of bytes.
  """
  dataset: str
  num_train: int | None = None
  num_val: int | None = None
  num_test: int | None = None
  seed: int = 0
  held_out: tuple[int, ...] = ()
  shifts: tuple[str, ...] = ()
  ood: tuple[str, ...] = ()
  ood_jpeg: int | None = None
  label: str | None = None
  pad: int = 0
  flip: bool = False
  brightness: float = 0.
  normalise: bool = canonical.later_field(True)

  def __post_init__(self):
    image_files.check_name('dataset', self.dataset)
    if self.num_train is not None:
      checks.check_count('num_train', self.num_train)
    if self.num_val is not None:
      checks.check_count('num_val', self.num_val, minimum=0)
    if self.num_test is not None:
      checks.check_count('num_test', self.num_test)
    draws.check_seed('seed', self.seed)
    for name in ('held_out', 'shifts', 'ood'):
      values = getattr(self, name)
      if not isinstance(values, tuple):
        raise ValueError(f'{name} must be a tuple, got {values!r}.')
      for value in values:
        if name == 'held_out':
          checks.check_count('every entry of held_out', value, minimum=0)
        elif name == 'ood' and not isinstance(value, str):
          raise ValueError(f'every entry of ood must be a text, got {value!r}.')
      if len(set(map(repr, values))) < len(values):
        raise ValueError(f'{name} must be without repetitions, got {values!r}.')
    if self.label is not None and not isinstance(self.label, str):
      raise ValueError(f'label must be a text or None, got {self.label!r}.')
    shifted_sets.check_shifts(self.shifts)
    for name in self.ood:
      if name not in MADE_OOD_SETS:
        image_files.check_name('every entry of ood that is none of '
                               f'{", ".join(MADE_OOD_SETS)}', name)
    if self.dataset in self.ood:
      raise ValueError(f'ood must be other data than dataset, got '
                       f'{self.dataset!r} in both.')
    if (HELD_OUT in self.ood) != bool(self.held_out):
      raise ValueError(f'ood must have {HELD_OUT!r} if, and only if, held_out '
                       f'names classes, got {self.ood} and {self.held_out}.')
    checks.check_count('pad', self.pad, minimum=0)
    checks.check_flag('flip', self.flip)
    checks.check_scale('brightness', self.brightness)
    if self.brightness > 1:
      raise ValueError(f'brightness must be at most 1, got {self.brightness}.')
    checks.check_flag('normalise', self.normalise)
    if self.ood_jpeg is not None:
      checks.check_choice('ood_jpeg', self.ood_jpeg, range(1, 101))

  @property
  def name(self) -> str:
    """What tables call the data, safe in names of files."""
    name = self.label or self.dataset.replace(':', '_')
    return ''.join(c if c.isalnum() or c in '-_.' else '_' for c in name)

  def problem_id(self, sha256: str) -> str:
    """Readable and unique, as 'mnist_s0_0123456789'.

    Args:
      sha256: of all data, see `ImageClassificationProblem.sha256`.
    """
    settings = canonical.named_fields(self, without=('seed',))
    return (f'{self.name}_s{self.seed}_'
            f'{canonical.config_hash([settings, sha256])}')


@dataclasses.dataclass(frozen=True, eq=False)
class ImageClassificationProblem:
  """Data and test sets of one problem; see `base.Problem`.

  Attributes:
    config: what names it.
    sha256: of all data that were read, whole, and of what was made from them.
    train: the training images.
    val: the validation images; None where there are none.
    test: the test images.
    make_shifts: yields the shifted test sets, one after the other: together
      they may be larger than the memory.
    ood: sets of other images, by name.
  """
  config: ImageProblemConfig
  sha256: str
  train: image_data.ImageData
  val: image_data.ImageData | None
  test: image_data.ImageData
  make_shifts: Callable[[], Iterator[image_data.ImageData]]
  ood: dict[str, image_data.ImageData]

  score_set = 'classification'

  @property
  def problem_id(self) -> str:
    """That of the config with the checksum of the data."""
    return self.config.problem_id(self.sha256)

  @functools.cached_property
  def normalisation(self) -> image_data.Normalisation:
    """Mean and std of the training set, or 0 and 1."""
    return (image_data.normalisation(self.train.images) if self.config.normalise
            else image_data.no_normalisation(self.train.shape[-1]))

  @property
  def augmentation(self) -> augmentation.Augmentation | None:
    """How training changes its inputs; None for not at all."""
    config = self.config
    if not (config.pad or config.flip or config.brightness):
      return None
    return augmentation.Augmentation(
        config.pad, config.flip, config.brightness, self.normalisation.black,
        self.normalisation.white)

  @functools.cached_property
  def data(self) -> base.Data:
    """What an agent learns from: x float32 [T, H, W, C], y int32 [T]."""
    return self._inputs(self.train)

  @functools.cached_property
  def validation(self) -> base.Data | None:
    """The validation images in the same form."""
    return None if self.val is None else self._inputs(self.val)

  @functools.cached_property
  def x_test(self) -> np.ndarray:
    """Inputs of the test images."""
    return self._inputs(self.test).x

  @property
  def prior(self) -> base.PriorKnowledge:
    """What an agent is told besides."""
    return base.PriorKnowledge(
        input_shape=self.train.shape, num_train=len(self.train),
        likelihood=base.Categorical(self.train.num_classes))

  def score(self, predict: base.Predict) -> dict[str, float]:
    """Scores by name; those under shift and out of distribution are means.

    Raises:
      ValueError: predictions are not draws of logits.
    """
    return self.combine_sets(self.score_by_set(predict))

  def combine_sets(self, by_set: Mapping[str, Mapping[str, float]]
                   ) -> dict[str, float]:
    """`score` from the result of `score_by_set`."""
    others = [scores for name, scores in by_set.items() if name != 'test']
    found = dict(by_set['test'])
    for kind in ('shift_', 'ood_'):
      found.update(classification_scores.mean_scores(
          [one for one in others if next(iter(one)).startswith(kind)]))
    return found

  def score_by_set(self, predict: base.Predict,
                   counts: dict[str, prediction_counts.Counts] | None = None
                   ) -> dict[str, dict[str, float]]:
    """Scores of each set: 'test', then shifted sets, then other images.

    Args:
      predict: what an agent predicts.
      counts: as in `classification_scores.score_sets`.

    Raises:
      ValueError: predictions are not draws of logits.
    """
    def points(x: np.ndarray) -> classification_scores.Points:
      return classification_scores.Points(*self._logits(predict, x))

    return classification_scores.score_sets(
        points(self.x_test), self.test.labels,
        ((one.name, points(self._inputs(one).x), one.labels)
         for one in self.make_shifts()),
        ((name, points(self._inputs(one).x)) for name, one in self.ood.items()),
        {} if counts is None else counts)

  def score_curve(self, predict: base.Predict,
                  order: np.ndarray) -> dict[str, np.ndarray]:
    """Scores on the test set of the first 1, 2, ..., P members of an order.

    Returns:
      `classification_scores.CURVE_SCORES`, float64 [P] each.

    Raises:
      array_checks.NotFiniteError: predictions are not finite.
    """
    logits, _ = self._logits(predict, self.x_test)
    if not np.isfinite(logits).all():
      raise array_checks.NotFiniteError(
          f'predictions of problem {self.problem_id} must be finite.')
    return classification_scores.score_curve(logits, self.test.labels, order)

  def _inputs(self, images: image_data.ImageData) -> base.Data:
    x = self.normalisation.apply(images.images)
    x.flags.writeable = False  # Problems are shared, as their labels are.
    return base.Data(x, images.labels)

  def _logits(self, predict: base.Predict, x: np.ndarray
              ) -> tuple[np.ndarray, aggregation.Aggregation]:
    """Draws of logits [J, N, C], and how they are made one prediction."""
    predictions = predict(x)
    samples = predictions.samples
    expected = len(x), self.train.num_classes
    if samples is None or np.shape(samples)[1:] != expected:
      got = 'none' if samples is None else f'shape {list(np.shape(samples))}'
      raise ValueError(
          f'problem {self.problem_id} needs draws of logits of shape '
          f'[J, {expected[0]}, {expected[1]}], got {got}.')
    return np.asarray(samples), aggregation.Aggregation.of(predictions)


def make_image_problem(config: ImageProblemConfig,
                       data_dir: str | os.PathLike | None = None
                       ) -> ImageClassificationProblem:
  """Reads the data of a problem and splits them.

  Args:
    config: what names it.
    data_dir: folder of the files, see `image_files.data_folder`; 'digits' needs
      none.

  Raises:
    ValueError: a file is missing or damaged, there are too few images, or sets
      do not fit together.
  """
  train = image_files.read_images(config.dataset, 'train', data_dir)
  test = image_files.read_images(config.dataset, 'test', data_dir)
  if train.shape != test.shape:
    raise ValueError(f'training images of {config.dataset} must have the shape '
                     f'of its test images, {list(test.shape)}, got '
                     f'{list(train.shape)}.')
  for corruption, severity in shifted_sets.our_shifts(config.shifts):
    corruptions.check_applies(test, corruption, severity)
  # A user's test set need not have the last class.
  num_classes = max(train.num_classes, test.num_classes)
  train, test = (dataclasses.replace(one, num_classes=num_classes)
                 for one in (train, test))
  others = {name: image_files.read_images(name, 'test', data_dir)
            for name in config.ood if name not in MADE_OOD_SETS}
  read = [train, test, *others.values()]

  kept = sorted(set(range(num_classes)) - set(config.held_out))
  ood = {}
  if config.held_out:
    unknown = [label for label in config.held_out if label >= num_classes]
    if unknown or len(kept) < 2:
      raise ValueError(f'held_out must leave two of the {num_classes} classes '
                       f'of {config.dataset} at least, got {config.held_out}.')
    ood[HELD_OUT] = image_splits.keep_classes(test, config.held_out, 'test')
    train = image_splits.keep_classes(train, kept, 'training')
    test = image_splits.keep_classes(test, kept, 'test')
  test = image_splits.take_some(test, config.num_test)
  for name in config.ood:
    if name == 'permuted':
      ood[name] = image_data.permute_pixels(test, image_splits.TEST_SEED)
    elif name == 'quarter_turn':
      ood[name] = image_data.quarter_turn(test)
    elif name != HELD_OUT:
      ood[name] = others[name]
  ood = {name: image_splits.take_some(
      corruptions.recompress(ood[name], config.ood_jpeg), config.num_test)
      for name in config.ood}
  # What is made may depend on versions of Pillow and scipy: its bytes count
  # too, those of our shifts by their first images.
  few = test.take(slice(_NUM_PROBES))
  probes = (corruptions.corrupt(few, *shift, image_splits.TEST_SEED)
            for shift in shifted_sets.our_shifts(config.shifts))
  sha256 = image_data.checksum(test, itertools.chain(
      read, image_splits.of_same_classes(
          shifted_sets.file_shifts(config.shifts, data_dir), config.dataset,
          num_classes), ood.values(), probes))

  def make_shifts() -> Iterator[image_data.ImageData]:
    for corruption, severity in shifted_sets.our_shifts(config.shifts):
      yield shifted_sets.make_shifted(test, corruption, severity,
                                      image_splits.TEST_SEED)
    for shifted in shifted_sets.file_shifts(config.shifts, data_dir):
      if config.held_out:
        shifted = shifted.keep_classes(kept, all_there=False)
      yield image_splits.take_some(shifted, config.num_test)

  train, val = image_splits.draw_validation(train, config.num_train,
                                            config.num_val, config.seed)
  return ImageClassificationProblem(config, sha256, train, val, test,
                                    make_shifts, ood)
