"""Classification problems of images: splits, sets, identity, scores."""

import dataclasses
import pathlib

import numpy as np
import pytest
from scipy import special

from enn_ensembles import base
from enn_ensembles.machine import bounded_cache
from enn_ensembles.problems import corruptions
from enn_ensembles.problems import image_classification
from enn_ensembles.problems import image_data
from enn_ensembles.problems import shifted_sets
from enn_ensembles.scoring import array_checks
from enn_ensembles.scoring import classification_scores
from enn_ensembles.scoring import table

Config = image_classification.ImageProblemConfig
RNG = np.random.default_rng(0)
AGENT_SCORES = {'weight_cosine', 'weight_cosine_biases'}
WEIGHTS = 0.3 * RNG.normal(size=(3, 64, 10))


def make(data_dir=None, **settings):
  return image_classification.make_image_problem(
      Config(**{'dataset': 'digits', **settings}), data_dir)


def predict(x):
  """Three linear members."""
  assert x.dtype == np.float32
  logits = np.einsum('nd,jdc->jnc', x.reshape(len(x), -1), WEIGHTS)
  return base.Predictions(logits)


def rows(images):
  return {image.tobytes() for image in images.images}


def test_digits_need_no_file():
  problem = make()
  assert len(problem.train) == 1079 and len(problem.val) == 119
  assert len(problem.test) == 599
  x, y = problem.data
  assert x.shape == (1079, 8, 8, 1) and x.dtype == np.float32
  assert y.dtype == np.int32
  np.testing.assert_allclose(x.mean(), 0., atol=1e-5)
  np.testing.assert_allclose(x.std(), 1., atol=1e-5)
  assert problem.prior == base.PriorKnowledge((8, 8, 1), 1079,
                                              base.Categorical(10))
  # The same arrays each time: predictions at them are kept by who they are.
  assert problem.data.x is x and problem.x_test is problem.x_test


def test_validation_is_out_of_the_training_set():
  whole = image_data.load_digits('train')
  problem = make(num_val=100)
  assert len(problem.train) + len(problem.val) == len(whole)
  assert rows(problem.train) | rows(problem.val) == rows(whole)
  # Two of the 1,797 digits could be alike; these are not.
  assert not rows(problem.val) & rows(problem.train)
  assert rows(problem.test) == rows(image_data.load_digits('test'))
  np.testing.assert_allclose(
      problem.validation.x,
      (problem.val.images / 255. - problem.normalisation.mean)
      / problem.normalisation.std, atol=1e-5)
  assert make(num_val=0).validation is None


def test_seeds_draw_training_images():
  problem, other = make(num_train=50), make(num_train=50, seed=1)
  assert rows(problem.train) != rows(other.train)
  assert rows(problem.val) != rows(other.val)
  assert rows(problem.test) == rows(other.test)
  again = make(num_train=50)
  np.testing.assert_array_equal(again.data.x, problem.data.x)
  # Fewer images are the first of more, next to the same validation set.
  more = make(num_train=80)
  np.testing.assert_array_equal(more.train.images[:50], problem.train.images)
  np.testing.assert_array_equal(more.val.images, problem.val.images)


def test_normalisation_is_of_the_training_set():
  images = RNG.integers(0, 256, (2100, 3, 3, 3), np.uint8)
  images[..., 2] = 128
  for these in (images, (images / 255.).astype(np.float32)):
    found = image_data.normalisation(these)
    np.testing.assert_allclose(found.mean, images.mean(axis=(0, 1, 2)) / 255.,
                               rtol=1e-6)
    np.testing.assert_allclose(
        found.std[:2], images[..., :2].std(axis=(0, 1, 2)) / 255., rtol=1e-6)
    assert found.std[2] == 1.  # A constant channel.
    x = found.apply(these)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, (images / 255. - found.mean) / found.std,
                               atol=1e-5)
  ends = np.zeros((2, 1, 1, 3), np.uint8)
  ends[1] = 255
  np.testing.assert_allclose(found.apply(ends)[:, 0, 0],
                             [found.black, found.white], rtol=1e-5)


def test_inputs_may_stay_as_they_are():
  settings = dict(num_train=50, shifts=('contrast:3',), ood=('permuted',))
  problem = make(**settings, normalise=False, pad=1, brightness=0.1)
  for x, images in ((problem.data.x, problem.train),
                    (problem.validation.x, problem.val),
                    (problem.x_test, problem.test)):
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, images.images / 255., rtol=1e-6)
  assert problem.augmentation.black == (0.,)
  assert problem.augmentation.white == (1.,)
  seen = []

  def predict(x):
    seen.append(x)
    return base.Predictions(np.zeros((1, len(x), 10)))

  problem.score(predict)
  others = [*problem.make_shifts(), problem.ood['permuted']]
  for x, one in zip(seen[1:], others, strict=True):
    np.testing.assert_allclose(x, one.images / 255., rtol=1e-6)
  # The default has the name that it had without this setting.
  other = make(**settings, pad=1, brightness=0.1)
  assert other.sha256 == problem.sha256
  assert other.problem_id == make(**settings, pad=1, brightness=0.1,
                                  normalise=True).problem_id
  assert other.problem_id != problem.problem_id


def test_held_out_classes_are_seen_only_as_other_images():
  problem = make(held_out=(8, 3), ood=('held_out',))
  assert problem.prior.likelihood == base.Categorical(8)
  test = image_data.load_digits('test')
  gone = np.isin(test.labels, (3, 8))
  assert rows(problem.ood['held_out']) == {
      image.tobytes() for image in test.images[gone]}
  np.testing.assert_array_equal(problem.test.images, test.images[~gone])
  numbers = {label: i for i, label in enumerate([0, 1, 2, 4, 5, 6, 7, 9])}
  np.testing.assert_array_equal(problem.test.labels,
                                [numbers[y] for y in test.labels[~gone]])
  whole = image_data.load_digits('train')
  inside = {image.tobytes() for image in whole.images[
      ~np.isin(whole.labels, (3, 8))]}
  assert rows(problem.train) | rows(problem.val) == inside


def test_other_sets():
  problem = make(num_test=40, ood=('quarter_turn', 'permuted'),
                 shifts=('rotation:2', 'shot_noise'))
  assert list(problem.ood) == ['quarter_turn', 'permuted']
  np.testing.assert_array_equal(
      problem.ood['quarter_turn'].images,
      np.rot90(problem.test.images, axes=(1, 2)))
  shifted = list(problem.make_shifts())
  assert [one.name for one in shifted] == [
      'digits/our rotation/2', *(f'digits/our shot_noise/{severity}'
                                 for severity in range(1, 6))]
  np.testing.assert_array_equal(
      shifted[3].images,
      corruptions.corrupt(problem.test, 'shot_noise', 3, 0).images)
  assert len(problem.test) == 40
  # Not the first 40, and the same for every seed.
  assert not np.array_equal(problem.test.images,
                            image_data.load_digits('test').images[:40])
  assert rows(make(num_test=40, seed=3).test) == rows(problem.test)


def test_compressed_other_images():
  plain = make(num_test=5, ood=('permuted',))
  problem = make(num_test=5, ood=('permuted',), ood_jpeg=75)
  np.testing.assert_array_equal(
      problem.ood['permuted'].images,
      corruptions.compress(plain.ood['permuted'].images, 75))
  np.testing.assert_array_equal(problem.test.images, plain.test.images)


def test_files(tmp_path):
  shape = (60, 32, 32, 3)
  arrays = dict(
      x_train=RNG.integers(0, 256, shape, np.uint8), y_train=np.arange(60) % 4,
      x_test=RNG.integers(0, 256, shape, np.uint8), y_test=np.arange(60) % 3)
  np.savez(tmp_path / 'mine.npz', **arrays)
  np.savez(tmp_path / 'else.npz', x=RNG.uniform(size=shape), y=np.zeros(60))
  folder = tmp_path / 'CIFAR-10-C'
  folder.mkdir()
  np.save(folder / 'fog.npy', arrays['x_test'][:10])
  np.save(folder / 'labels.npy', np.arange(10) % 4)
  settings = dict(dataset='npz:mine', shifts=('cifar10_c:fog',),
                  ood=('npz:else',))
  problem = make(tmp_path, **settings)
  # The training set has the fourth class, the test set has not.
  assert problem.prior.likelihood == base.Categorical(4)
  assert problem.test.num_classes == 4
  shifted = list(problem.make_shifts())
  assert [one.name for one in shifted] == [
      f'cifar10_c/fog/{severity}' for severity in range(1, 6)]
  np.testing.assert_array_equal(shifted[1].images, arrays['x_test'][2:4])
  assert set(problem.ood) == {'npz:else'}
  assert make(tmp_path, **{**settings, 'shifts': ('cifar10_c',)}
              ).sha256 == problem.sha256

  # Other bytes anywhere are another problem, wherever the folder is.
  np.savez(tmp_path / 'else.npz', x=RNG.uniform(size=shape), y=np.zeros(60))
  changed = make(tmp_path, **settings)
  assert changed.problem_id != problem.problem_id
  np.save(folder / 'fog.npy', arrays['x_test'][10:20])
  assert make(tmp_path, **settings).problem_id not in (
      problem.problem_id, changed.problem_id)
  tmp_path.joinpath('again').mkdir()
  for name in ('mine', 'else'):
    (tmp_path / f'{name}.npz').rename(tmp_path / 'again' / f'{name}.npz')
  folder.rename(tmp_path / 'again' / 'CIFAR-10-C')
  moved = make(tmp_path / 'again', **settings)
  np.save(tmp_path / 'again/CIFAR-10-C/fog.npy', arrays['x_test'][:10])
  assert moved.sha256 != make(tmp_path / 'again', **settings).sha256

  with pytest.raises(ValueError, match=r'digits must have images of shape '
                     r'\[32, 32, 3\] like .* got \[8, 8, 1\]'):
    make(tmp_path / 'again', dataset='npz:mine', ood=('digits',))
  np.savez(tmp_path / 'again/two_train.npz', x=arrays['x_train'][..., :2],
           y=arrays['y_train'])
  np.savez(tmp_path / 'again/two_test.npz', x=arrays['x_test'][..., :2],
           y=arrays['y_test'])
  with pytest.raises(ValueError, match='jpeg needs images with 1 or 3'):
    make(tmp_path / 'again', dataset='npz:two', shifts=('jpeg',))


def test_problem_id_names_what_decides():
  problem = make(num_train=60)
  assert problem.problem_id.startswith('digits_s0_')
  seen = {make(**settings).problem_id for settings in (
      dict(num_train=60), dict(num_train=61), dict(num_train=60, seed=1),
      dict(num_train=60, num_val=30), dict(num_train=60, num_test=9),
      dict(num_train=60, ood=('permuted',)), dict(shifts=('rotation:1',)),
      dict(label='digits8'), dict(held_out=(8,), ood=('held_out',)))}
  assert len(seen) == 9 and problem.problem_id in seen
  assert Config('npz:a').name == 'npz_a'
  assert Config('cifar10', label='cifar10-jpeg75').name == 'cifar10-jpeg75'
  with pytest.raises(dataclasses.FrozenInstanceError):
    problem.config.seed = 2


def test_scores_are_means_over_sets():
  problem = make(num_test=50, shifts=('rotation:1', 'rotation:6'),
                 ood=('permuted', 'quarter_turn'))
  scores, by_set = problem.score(predict), problem.score_by_set(predict)
  assert set(scores) == set(table.scores_of('classification')) - AGENT_SCORES
  logits = predict(problem.x_test).samples
  test = classification_scores.score_test(logits, problem.test.labels)
  assert by_set['test'] == test
  assert {name: scores[name] for name in test} == test
  turned = next(problem.make_shifts())
  probs = special.softmax(
      predict(problem.normalisation.apply(turned.images)).samples, axis=-1)
  assert by_set[turned.name]['shift_accuracy'] == np.mean(
      probs.mean(axis=0).argmax(axis=-1) == turned.labels)
  shifted = [by_set[f'digits/our rotation/{severity}'] for severity in (1, 6)]
  assert scores['shift_nll'] == pytest.approx(
      np.mean([one['shift_nll'] for one in shifted]))
  assert scores['ood_auroc_mi'] == pytest.approx(
      np.mean([by_set[name]['ood_auroc_mi'] for name in problem.ood]))
  assert scores['ood_base_rate'] == 0.5
  plain = make(num_test=50).score(predict)
  assert not any(name.startswith(('shift_', 'ood_')) for name in plain)
  required = {name for name, score in table.scores_of('classification').items()
              if score.required}
  assert required <= set(plain)


def test_curve_ends_with_the_scores():
  problem = make(num_test=50)
  curve = problem.score_curve(predict, np.array([1, 2, 0]))
  scores = problem.score(predict)
  for name, values in curve.items():
    assert values.shape == (3,)
    assert values[-1] == pytest.approx(scores[name])
  with pytest.raises(array_checks.NotFiniteError, match='must be finite'):
    problem.score_curve(
        lambda x: base.Predictions(np.full((3, 50, 10), np.nan)), np.arange(3))


def test_predictions_of_other_kinds_are_refused():
  problem = make(num_test=50)
  for found, got in [
      (base.Predictions(None, mean=np.zeros((50, 10)), std=np.ones((50, 10))),
       'none'),
      (base.Predictions(np.zeros((3, 50))), r'shape \[3, 50\]'),
      (base.Predictions(np.zeros((3, 50, 9))), r'shape \[3, 50, 9\]')]:
    with pytest.raises(ValueError,
                       match=rf'needs draws of logits .* 10\], got {got}'):
      problem.score(lambda x: found)


@pytest.mark.parametrize('settings, pattern', [
    (dict(dataset='mnits'), "dataset must be one of .*; got 'mnits'"),
    (dict(dataset='npz:'), 'dataset must be one of'),
    (dict(num_train=0), 'num_train must be an integer >= 1'),
    (dict(num_val=-1), 'num_val must be an integer >= 0'),
    (dict(num_test=0), 'num_test must be an integer >= 1'),
    (dict(seed=-1), 'seed must be an integer >= 0'),
    (dict(seed=2**32), 'seed must be at most'),
    (dict(shifts=['jpeg']), 'shifts must be a tuple'),
    (dict(shifts=('jpeg', 'jpeg')), 'without repetitions'),
    (dict(shifts=('jpeg', 'jpeg:1')), "must not have 'jpeg:1' beside 'jpeg'"),
    (dict(shifts=('fog',)), "every entry of shifts must be one of .*'fog'"),
    (dict(shifts=(3,)), 'every entry of shifts must be one of .*; got 3'),
    (dict(shifts=('jpeg:6',)), "severity of jpeg must be one of .*; got '6'"),
    (dict(shifts=('jpeg:1:2',)), 'severity of jpeg'),
    (dict(shifts=('cifar10_c:../x',)), 'must name one corruption'),
    (dict(ood=('letters',)), "every entry of ood .*; got 'letters'"),
    (dict(ood=('digits',)), "other data than dataset, got 'digits' in both"),
    (dict(ood=('held_out',)), 'if, and only if'),
    (dict(held_out=(8, 9)), 'if, and only if'),
    (dict(held_out=(-1,), ood=('held_out',)), 'every entry of held_out'),
    (dict(ood_jpeg=0), 'ood_jpeg must be one of'),
    (dict(normalise='no'), "normalise must be True or False, got 'no'"),
    (dict(normalise=0), 'normalise must be True or False, got 0'),
    (dict(normalise=None), 'normalise must be True or False, got None'),
])
def test_bad_configs(settings, pattern):
  with pytest.raises(ValueError, match=pattern):
    Config(**{'dataset': 'digits', **settings})


def test_bad_problems(tmp_path):
  for settings, pattern in [
      (dict(num_train=1198, num_val=1), 'at most the 1198 training images'),
      (dict(num_val=1198), 'with num_train >= 1'),
      (dict(held_out=(10,), ood=('held_out',)), 'must leave two of the 10'),
      (dict(held_out=tuple(range(9)), ood=('held_out',)), 'must leave two'),
      (dict(dataset='mnist'), 'comes from http'),
      (dict(ood=('notmnist',)), 'notmnist has no file'),
      (dict(shifts=('mnist_c',)), 'mnist_c has no folder')]:
    with pytest.raises(ValueError, match=pattern):
      make(tmp_path, **settings)


def test_made_sets_are_made_once(monkeypatch):
  calls = []
  corrupt = corruptions.corrupt

  def counted(data, *arguments):
    calls.append((len(data), *arguments))
    return corrupt(data, *arguments)

  monkeypatch.setattr(corruptions, 'corrupt', counted)
  data = image_data.load_digits('test').take(slice(30))
  monkeypatch.setattr(shifted_sets, '_kept', bounded_cache.BoundedCache(
      2 * data.images.nbytes))
  make_shifted = shifted_sets.make_shifted
  first, again = ([make_shifted(data, 'contrast', severity, 0)
                   for severity in (1, 2, 3)] for _ in range(2))
  # There is room for two.
  assert [call[2] for call in calls] == [1, 2, 3, 3]
  for one, other in zip(first, again):
    np.testing.assert_array_equal(one.images, other.images)
  # Another image set never gets what was made of the first.
  turned = image_data.quarter_turn(data)
  np.testing.assert_array_equal(make_shifted(turned, 'contrast', 1, 0).images,
                                corrupt(turned, 'contrast', 1, 0).images)
  # Another seed has other noise.
  make_shifted(turned, 'contrast', 1, 5)
  assert len(calls) == 6


def test_what_is_made_is_part_of_the_identity(monkeypatch):
  settings = dict(num_test=30, ood=('permuted',), ood_jpeg=75,
                  shifts=('jpeg:2', 'rotation:1'))
  problem = make(**settings)
  assert make(**settings).problem_id == problem.problem_id
  compress = corruptions.compress

  def other_library(images, quality):
    return np.clip(compress(images, quality), 1, 255)

  monkeypatch.setattr(corruptions, 'compress', other_library)
  assert make(**settings).problem_id != problem.problem_id


def test_example_of_the_docs_runs():
  page = pathlib.Path(__file__).parents[1] / 'docs' / 'images.md'
  example = page.read_text().split('```python\n')[1].split('```')[0]
  names: dict = {}
  exec(example, names)  # pylint: disable=exec-used
  assert list(names['by_set'])[0] == 'test' and len(names['by_set']) == 10
  assert set(names['scores']) == (
      set(table.scores_of('classification')) - AGENT_SCORES)
