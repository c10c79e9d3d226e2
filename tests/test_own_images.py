"""Images that a user brings: other files, few of them, odd settings."""

import re

import commands
import numpy as np
import pytest

import enn_ensembles as ee
from enn_ensembles import base
from enn_ensembles import conformance
from enn_ensembles.problems import image_classification
from enn_ensembles.problems import image_data
from enn_ensembles.problems import image_files
from enn_ensembles.studies.decomposition import images
from enn_ensembles.studies.empirical_bayes import units

RNG = np.random.default_rng(0)


def write(path, num=40, num_classes=4, size=8, **others):
  x = RNG.integers(0, 256, (num, size, size)).astype(np.uint8)
  np.savez(path, x=x, y=np.arange(num) % num_classes, **others)


def write_split(folder, name='own', **settings):
  for split in ('train', 'test'):
    write(folder / f'{name}_{split}.npz', **settings)


def test_files_that_change_are_read_again(tmp_path):
  write_split(tmp_path)
  first = ee.load_problem('npz:own_s0', data_dir=tmp_path)
  write_split(tmp_path, num=60)
  second = ee.load_problem('npz:own_s0', data_dir=tmp_path)
  assert (len(first.train), len(second.train)) == (36, 54)
  assert first.problem_id != second.problem_id


def test_inputs_are_read_only():
  problem = ee.load_problem('digits_s0', num_train=50)
  for x in (problem.data.x, problem.validation.x, problem.x_test):
    with pytest.raises(ValueError, match='read-only'):
      x[...] = 0.


def test_training_images_are_no_test_images(tmp_path):
  write(tmp_path / 'leak.npz')
  assert len(image_files.read_images('npz:leak', 'test', tmp_path)) == 40
  write(tmp_path / 'leak_train.npz')
  with pytest.raises(ValueError, match='x_test'):
    image_files.read_images('npz:leak', 'test', tmp_path)


def test_zeros_and_ones_are_no_bytes(tmp_path):
  np.savez(tmp_path / 'ones_train.npz', y=np.arange(4),
           x=RNG.integers(0, 2, (4, 8, 8)).astype(np.uint8))
  with pytest.raises(ValueError, match='give float32 for values from 0 to 1'):
    image_files.read_images('npz:ones', 'train', tmp_path)


def test_shifts_have_the_classes_of_the_data_set(tmp_path):
  folder = tmp_path / 'mnist_c' / 'fog'
  folder.mkdir(parents=True)
  np.save(folder / 'test_images.npy', np.zeros((6, 28, 28, 1), np.uint8))
  np.save(folder / 'test_labels.npy', np.arange(6))
  make = image_classification.make_image_problem
  settings = dict(dataset='npz:own', shifts=('mnist_c:fog',))
  for num_classes in (3, 12):
    write_split(tmp_path, size=28, num_classes=num_classes)
    with pytest.raises(ValueError, match='labels up to 5 of 10 classes, which '
                                         f'are not the {num_classes} of npz'):
      make(image_classification.ImageProblemConfig(**settings), tmp_path)
  write_split(tmp_path, size=28, num_classes=10)
  problem = make(image_classification.ImageProblemConfig(
      **settings, held_out=(8, 9), ood=('held_out',)), tmp_path)
  shifted, = problem.make_shifts()  # Not all of the eight that are left.
  np.testing.assert_array_equal(shifted.labels, np.arange(6))


def test_a_class_that_is_missing_is_named_with_its_split(tmp_path):
  write(tmp_path / 'own_train.npz', num_classes=5)
  write(tmp_path / 'own_test.npz', num_classes=2)
  with pytest.raises(ValueError, match='test images: npz:own has no image of '
                                       'class 4'):
    ee.load_problem('npz:own_s0', data_dir=tmp_path, held_out=[4],
                    ood=['held_out'])


def test_splits_of_other_sizes_are_named(tmp_path):
  write(tmp_path / 'own_train.npz')
  write(tmp_path / 'own_test.npz', size=9)
  with pytest.raises(ValueError, match=r'training images of npz:own must have '
                                       r'the shape of its test images, \[9'):
    ee.load_problem('npz:own_s0', data_dir=tmp_path)


@pytest.mark.parametrize('settings, message', [
    (dict(ood=[None]), 'every entry of ood must be a text, got None'),
    (dict(shifts=[[3]]), r'every entry of shifts must be .*got \[3\]'),
    (dict(held_out=[[8]]), r'every entry of held_out must be .*got \[8\]'),
    (dict(held_out=[8, 8]), 'held_out must be without repetitions'),
    (dict(dataset=3), 'dataset must be a text, got 3'),
    (dict(label=3), 'label must be a text or None, got 3'),
    (dict(size=3), 'settings of image problems are dataset.*got dataset, size'),
    (dict(dataset='npz:own.npz'), 'npz:NAME without the ending of the file')])
def test_settings_of_another_type_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    ee.load_problem('digits_s0', **settings)


def test_an_id_is_of_its_own_data_set():
  with pytest.raises(ValueError, match="problem_id 'cifar10_s0' is of cifar10, "
                                       'its settings of digits'):
    ee.load_problem('cifar10_s0', dataset='digits')
  assert ee.load_problem('written_s0', dataset='digits', label='written',
                         num_train=30).config.label == 'written'


@pytest.mark.parametrize('num_classes', [3, 10, 30])
def test_checks_of_agents_have_all_classes(num_classes):
  """Classifiers of other libraries predict no class that they have not seen."""
  def agent(data, prior, key):
    seen = len(np.unique(data.y))
    assert data.x.dtype == np.float32 and len(data.x) >= seen

    class Sampler:
      def members(self, x):
        return np.zeros((2, len(x), seen)) + np.arange(2.)[:, None, None]

      def __call__(self, x, key):
        return self.members(x)[int(key[-1]) % 2]

    return Sampler()

  conformance.check_agent(agent, base.PriorKnowledge(
      (8, 8, 1), 1000, base.Categorical(num_classes)))


def test_studies_need_enough_images(tmp_path):
  few = image_data.load_digits('train').take(slice(300))
  with pytest.raises(ValueError, match='digits must have 1100 training images '
                                       'at least .*got 300'):
    images.ImageSettings().check(few)
  images.ImageSettings(sizes=(100, 200)).check(few)
  write_split(tmp_path, num=5, num_classes=2)
  unit = units.Unit('npz:own', 'plain', 0, (2,), 2, (2,))
  with pytest.raises(ValueError, match='no validation data'):
    units.run(unit, str(tmp_path))


def test_what_a_study_keeps_is_of_its_images(tmp_path):
  flags = [f'--output_dir={tmp_path / "out"}', f'--data_dir={tmp_path}',
           '--problems=npz:own', '--num_digits_seeds=1', '--num_members=2',
           '--num_batches=2', '--kinds=plain']
  for num in (40, 60):
    write_split(tmp_path, num=num)
    (code, _, error), = commands.run_commands('empirical_bayes', flags)
    assert code == 0, error
  assert len(list((tmp_path / 'out' / 'units').iterdir())) == 2


@pytest.mark.parametrize('settings, message', [
    ({'degrade': 0.5}, 'degrade needs problems with an exact posterior, got '
                       'npz_own_n5'),
    ({'selection': 'val_nll'}, "selection 'val_nll' of agent .* needs "
                               'validation data, which npz_own_n5'),
    ({'validate_every': 1, 'patience': 1}, 'early stopping of agent .* needs')])
def test_what_cannot_work_is_known_before_work(tmp_path, settings, message):
  write_split(tmp_path, num=5, num_classes=2)  # A tenth of five is none.
  agent = {'agent': 'ensemble', 'num_batches': 2, 'num_ensemble': 2,
           'prior_scale': 0., **settings}
  (tmp_path / 'config.py').write_text(
      "PROBLEMS = 'images'\nDATASET = ['npz:own']\nSEED = [0]\n"
      f'AGENTS = [{agent}]\n')
  (code, out, error), = commands.run_commands('run_sweep', [
      f'--config={tmp_path / "config.py"}', f'--data_dir={tmp_path}',
      f'--results_dir={tmp_path / "rows"}', '--num_workers=1'])
  assert (code, out) == (2, '') and error.count('\n') == 1
  assert re.search(message, error)
