"""The loss landscape of ensembles: runs, subspaces, lines, hard examples.

python -m experiments.loss_landscape --output_dir=OUT
python -m experiments.loss_landscape --dataset=cifar10 --data_dir=DATA \
    --body=small_cnn --num_train=10000 --num_test=2000 --output_dir=OUT

Fort, Hu & Lakshminarayanan 2019, "Deep ensembles: a loss landscape perspective"
(arXiv 1912.02757). Writes tables, pictures, verdicts and a page with a slider
over epochs. Runs are kept in --snapshots_dir and found again there, so that a
study that was killed goes on. docs/study_loss_landscape.md explains the parts.
"""

import os
import pathlib

from absl import flags
import jax
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.machine import peak_memory
from enn_ensembles.problems import image_classification
from enn_ensembles.report import csv_files
from enn_ensembles.studies.loss_landscape import settings as settings_lib
from enn_ensembles.studies.loss_landscape import study
from enn_ensembles.studies.loss_landscape import testbed_curve
from enn_ensembles.studies.loss_landscape import trajectories
from experiments import cli
from experiments import data_flags

flags.adopt_module_key_flags(data_flags)

_DEFAULTS = settings_lib.LandscapeSettings()
_TRAINING = _DEFAULTS.training

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where tables and pictures go; made if missing.',
    required=True)
_SNAPSHOTS_DIR = flags.DEFINE_string(
    'snapshots_dir', None, 'Where the runs are kept and found again. Default: '
    'the folder snapshots in output_dir.')
_DATASET = flags.DEFINE_string('dataset', 'digits', 'Which images.')
_NUM_TRAIN = flags.DEFINE_integer('num_train', None, 'Training images; all if '
                                  'not given.')
_NUM_TEST = flags.DEFINE_integer('num_test', None, 'Test images; all if not '
                                 'given.')
_PAD = flags.DEFINE_integer('pad', 0, 'Training images move by so many pixels.')
_BRIGHTNESS = flags.DEFINE_float(
    'brightness', 0., 'Largest change of brightness of training images.')
_NORMALISE = flags.DEFINE_bool(
    'normalise', True, 'Whether inputs are normalised by the mean and the std '
    'of the training images; --normalise=false is x / 255, as in the paper.')
_BODY = flags.DEFINE_string('body', _TRAINING.body, 'Which network.')
_HIDDEN_SIZES = flags.DEFINE_list(
    'hidden_sizes', [str(size) for size in _TRAINING.hidden_sizes],
    "Units of the hidden layers of body 'mlp'.")
_NUM_EPOCHS = flags.DEFINE_integer('num_epochs', _TRAINING.num_epochs,
                                   'Passes through the training set.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', _TRAINING.batch_size,
                                   'Images per step.')
_LEARNING_RATE = flags.DEFINE_float(
    'learning_rate', _TRAINING.learning_rate,
    'Of Adam, at most 1; halved after each quarter of the steps.')
_DROPOUT = flags.DEFINE_float('dropout', _TRAINING.dropout,
                              'Dropout of hidden units in training.')
_SEED = flags.DEFINE_integer('seed', _TRAINING.seed, 'Of the study.')
_NUM_INITS = flags.DEFINE_integer('num_inits', _DEFAULTS.num_inits, 'Runs.')
_NUM_TRAJECTORIES = flags.DEFINE_integer(
    'num_trajectories', _DEFAULTS.num_trajectories,
    'Runs that keep all snapshots.')
_NUM_SAMPLES = flags.DEFINE_integer(
    'num_samples', _DEFAULTS.num_samples,
    'Networks of a subspace ensemble.')
_NUM_PLANE_SAMPLES = flags.DEFINE_integer(
    'num_plane_samples', _DEFAULTS.num_plane_samples,
    'Networks of each sampler in the plane of diversity and accuracy.')
_NUM_GRID_POINTS = flags.DEFINE_integer(
    'num_grid_points', _DEFAULTS.num_grid_points,
    'Points of each side of the plane through three solutions.')
_NUM_SURFACE_IMAGES = flags.DEFINE_integer(
    'num_surface_images', _DEFAULTS.num_surface_images,
    'Images that lines and the plane are made on, of each set.')
_PCA_SCALE = flags.DEFINE_string(
    'pca_scale', _DEFAULTS.pca_scale, "Scale of the low-rank sampler's "
    'components: covariance, or published (std 1 each).')


_TESTBED = flags.DEFINE_bool(
    'testbed', False, 'Only KL by ensemble size on the testbed: '
    'testbed_curve.csv and testbed_curve.png.')

# What says nothing of the testbed.
_OF_IMAGES = (
    data_flags.DATA_DIR, _SNAPSHOTS_DIR, _DATASET, _NUM_TRAIN,
    _NUM_TEST, _PAD, _BRIGHTNESS, _NORMALISE, _BODY, _HIDDEN_SIZES,
    _NUM_EPOCHS, _BATCH_SIZE, _LEARNING_RATE, _DROPOUT, _SEED,
    _NUM_INITS, _NUM_TRAJECTORIES, _NUM_SAMPLES, _NUM_PLANE_SAMPLES,
    _NUM_GRID_POINTS, _NUM_SURFACE_IMAGES, _PCA_SCALE)


def _report_testbed() -> None:
  """Trains on testbed cells; writes a table and a picture."""
  jax.config.update('jax_enable_x64', True)
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  table = pd.DataFrame(testbed_curve.run(testbed_curve.CurveSettings()))
  for name, content in (
      ('testbed_curve.csv', csv_files.short_text(table).encode()),
      ('testbed_curve.png', testbed_curve.picture(table))):
    files.write_atomically(folder / name, content)
    print(folder / name)


def main(_) -> None:
  if _TESTBED.value:
    cli.refuse(_OF_IMAGES, '--testbed has settings of its own')
    _report_testbed()
    return
  settings = settings_lib.LandscapeSettings(
      trajectories.TrainingSettings(
          body=_BODY.value, hidden_sizes=tuple(cli.numbers(
              _HIDDEN_SIZES, int, are_different=False)),
          num_epochs=_NUM_EPOCHS.value, batch_size=_BATCH_SIZE.value,
          learning_rate=_LEARNING_RATE.value, dropout=_DROPOUT.value,
          seed=_SEED.value),
      num_inits=_NUM_INITS.value, num_trajectories=_NUM_TRAJECTORIES.value,
      num_samples=_NUM_SAMPLES.value,
      num_plane_samples=_NUM_PLANE_SAMPLES.value,
      num_grid_points=_NUM_GRID_POINTS.value,
      num_surface_images=_NUM_SURFACE_IMAGES.value, pca_scale=_PCA_SCALE.value)
  snapshots_dir = _SNAPSHOTS_DIR.value or os.path.join(_OUTPUT_DIR.value,
                                                       'snapshots')
  files.check_folder(_OUTPUT_DIR.value, 'output_dir')
  files.check_folder(snapshots_dir, 'snapshots_dir')
  problem = image_classification.make_image_problem(
      image_classification.ImageProblemConfig(
          _DATASET.value, num_train=_NUM_TRAIN.value, num_test=_NUM_TEST.value,
          seed=_SEED.value, pad=_PAD.value, brightness=_BRIGHTNESS.value,
          normalise=_NORMALISE.value),
      data_flags.data_dir())
  paths = study.run_study(settings, problem, _OUTPUT_DIR.value, snapshots_dir)
  print(pathlib.Path(paths['verdicts.md']).read_text(encoding='utf-8'), end='')
  for path in paths.values():
    print(path)
  print(f'peak memory: {peak_memory.since_start_mb() or float("nan"):.0f} MB')


if __name__ == '__main__':
  cli.run_main(main)
