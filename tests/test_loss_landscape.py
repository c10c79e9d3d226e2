"""The loss landscape: formulas against slow numpy and simulation, tiny runs."""

import dataclasses
import itertools
import json
import re
import types

import numpy as np
import pandas as pd
import pytest

from enn_ensembles.problems import image_classification
from enn_ensembles.report import statistics
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import gaussian
from enn_ensembles.studies.loss_landscape import ensembles
from enn_ensembles.studies.loss_landscape import formulas
from enn_ensembles.studies.loss_landscape import hard_examples
from enn_ensembles.studies.loss_landscape import samplers
from enn_ensembles.studies.loss_landscape import settings as settings_lib
from enn_ensembles.studies.loss_landscape import study
from enn_ensembles.studies.loss_landscape import subspaces
from enn_ensembles.studies.loss_landscape import testbed_curve
from enn_ensembles.studies.loss_landscape import trajectories
from enn_ensembles.studies.loss_landscape import verdicts

RNG = np.random.default_rng(0)


# Formulas.

def test_matrices_against_loops():
  vectors = RNG.standard_normal((4, 7))
  labels = RNG.integers(0, 3, (4, 11))
  cosines = formulas.cosine_matrix(vectors)
  disagreement = formulas.disagreement_matrix(labels)
  for i, j in itertools.product(range(4), repeat=2):
    expected = vectors[i] @ vectors[j] / np.sqrt(
        (vectors[i] @ vectors[i]) * (vectors[j] @ vectors[j]))
    assert cosines[i, j] == pytest.approx(expected, abs=1e-12)
    different = sum(a != b for a, b in zip(labels[i], labels[j]))
    assert disagreement[i, j] == different / 11
  assert formulas.pair_values(disagreement).tolist() == [
      disagreement[i, j] for i, j in itertools.combinations(range(4), 2)]


@pytest.mark.parametrize('num_classes', [2, 3, 10])
def test_upper_limit_is_that_of_independent_predictions(num_classes):
  num, a, b = 400_000, 0.8, 0.7
  rng = np.random.default_rng(num_classes)
  truth = rng.integers(0, num_classes, num)

  def predictions(accuracy):
    wrong = (truth + rng.integers(1, num_classes, num)) % num_classes
    return np.where(rng.random(num) < accuracy, truth, wrong)

  solution, sample = predictions(a), predictions(b)
  found = formulas.diversity(sample, solution, np.mean(sample == truth))
  assert formulas.upper_limit(a, b, num_classes) == pytest.approx(
      found, abs=0.01)


@pytest.mark.parametrize('num_classes', [3, 10])
def test_lower_limit_is_that_of_a_perturbed_copy(num_classes):
  num, a, p = 400_000, 0.8, 0.25
  rng = np.random.default_rng(num_classes)
  truth = rng.integers(0, num_classes, num)
  solution = np.where(rng.random(num) < a, truth, (truth + rng.integers(
      1, num_classes, num)) % num_classes)
  other = (solution + rng.integers(1, num_classes, num)) % num_classes
  sample = np.where(rng.random(num) < p, other, solution)
  b = np.mean(sample == truth)
  assert formulas.lower_limit(np.mean(solution == truth), b,
                              num_classes) == pytest.approx(
      formulas.diversity(sample, solution, b), abs=0.01)
  # A copy as accurate as the solution need not differ.
  assert formulas.lower_limit(0.8, 0.8, num_classes) == 0.


def test_jaccard_against_sets():
  sets = RNG.random((5, 30)) < 0.3
  sets[3] = sets[4] = False
  found = formulas.jaccard_matrix(sets)
  as_sets = [set(np.flatnonzero(row)) for row in sets]
  for i, j in itertools.product(range(5), repeat=2):
    either = as_sets[i] | as_sets[j]
    expected = len(as_sets[i] & as_sets[j]) / len(either) if either else 1.
    assert found[i, j] == pytest.approx(expected)


@pytest.mark.parametrize('sizes', [(2, 3, 6), (4, 5, 6), (0, 2, 5), (3, 3, 3),
                                   (0, 0, 4)])
def test_expected_jaccard_is_the_mean_over_all_sets(sizes):
  first, second, num_points = sizes
  fixed = set(range(first))
  values = []
  for chosen in itertools.combinations(range(num_points), second):
    either = fixed | set(chosen)
    values.append(len(fixed & set(chosen)) / len(either) if either else 1.)
  assert formulas.expected_jaccard(*sizes) == pytest.approx(np.mean(values))
  sets = np.zeros((2, num_points), bool)
  sets[0, :first], sets[1, :second] = True, True
  assert formulas.expected_jaccard_matrix(sets)[0, 1] == pytest.approx(
      np.mean(values))


def test_expected_jaccard_refuses_sets_that_do_not_fit():
  with pytest.raises(ValueError, match='must have 0 to 3 points, got 4 and 1'):
    formulas.expected_jaccard(4, 1, 3)


def test_confusion_matrix_counts():
  labels, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2])
  assert formulas.confusion_matrix(labels, predicted, 3).tolist() == [
      [1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_barrier_is_measured_from_the_line_between_the_ends():
  t = np.linspace(0., 1., 101)
  # 1 + t + h sin(pi t): the line between the ends is 1 + t.
  assert formulas.barrier(1. + t + 0.7 * np.sin(np.pi * t), t) == (
      pytest.approx(0.7))
  assert formulas.barrier((t - 0.5)**2, t) == 0.


def test_plane_holds_its_three_points():
  points = RNG.standard_normal((3, 9))
  plane = formulas.plane_through(points)
  np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
  np.testing.assert_allclose(plane.points(plane.coordinates), points,
                             atol=1e-12)
  # Distances in the plane are those of the weights.
  assert np.linalg.norm(plane.coordinates[1] - plane.coordinates[2]) == (
      pytest.approx(np.linalg.norm(points[1] - points[2])))
  line = np.stack([points[0], points[0] + points[1],
                   points[0] + 3. * points[1]])
  with pytest.raises(ValueError, match='must not be on one line'):
    formulas.plane_through(line)
  with pytest.raises(ValueError, match='must not be on one line'):
    formulas.plane_through(points[[0, 0, 1]])


def test_subsets_are_all_or_random_ones():
  rng = np.random.default_rng(0)
  assert formulas.subsets(4, 2, 200, rng) == list(
      itertools.combinations(range(4), 2))
  drawn = formulas.subsets(10, 5, 200, rng)
  assert len(set(drawn)) == 200
  assert all(len(set(one)) == 5 and list(one) == sorted(one) for one in drawn)


def test_mean_over_subsets():
  values = RNG.standard_normal((3, 2))
  np.testing.assert_allclose(
      formulas.mean_over_subsets(values, [(0, 2), (1,)]),
      [(values[0] + values[2]) / 2, values[1]])


# Samplers.

def test_random_directions_have_uniform_lengths():
  solution = RNG.standard_normal(20)
  drawn = samplers.draw_random(solution, np.full(4000, 10.),
                               np.random.default_rng(1))
  lengths = np.linalg.norm(drawn - solution, axis=1)
  assert lengths.max() < 10.
  np.testing.assert_allclose(np.quantile(lengths, [0.25, 0.5, 0.75]),
                             [2.5, 5., 7.5], atol=0.4)
  np.testing.assert_allclose(drawn.mean(axis=0), solution, atol=0.15)


def test_dropout_keeps_the_mean():
  solution = np.array([1., -2., 3.])
  drawn = samplers.draw_dropout(solution, np.full(20_000, 0.3),
                                np.random.default_rng(1))
  assert np.mean(drawn == 0.) == pytest.approx(0.3, abs=0.01)
  np.testing.assert_allclose(drawn.mean(axis=0), solution, atol=0.06)
  kept = drawn != 0.
  np.testing.assert_allclose(drawn[kept],
                             np.broadcast_to(solution / 0.7, kept.shape)[kept])
  np.testing.assert_array_equal(
      samplers.draw_dropout(solution, np.zeros(2), np.random.default_rng(1)),
      [solution, solution])


def test_diagonal_has_the_moments_of_the_snapshots():
  snapshots = RNG.standard_normal((10, 3)) * [1., 2., 0.]
  drawn = samplers.draw_diagonal(snapshots, np.full(40_000, 2.),
                                 np.random.default_rng(1))
  np.testing.assert_allclose(drawn.mean(axis=0), snapshots.mean(axis=0),
                             atol=0.05)
  np.testing.assert_allclose(drawn.std(axis=0), 2. * snapshots.std(axis=0),
                             rtol=0.02, atol=1e-12)


def test_low_rank_has_the_covariance_of_the_snapshots():
  snapshots = RNG.standard_normal((6, 2)) @ RNG.standard_normal((2, 4))
  rng = np.random.default_rng(1)
  drawn = samplers.draw_low_rank(snapshots, np.ones(100_000), 2, 'covariance',
                                 rng)
  # Two components hold all of a covariance of rank two.
  expected = np.cov(snapshots.T)
  np.testing.assert_allclose(np.cov(drawn.T), expected,
                             atol=0.03 * np.abs(expected).max())
  published = samplers.draw_low_rank(snapshots, np.full(100_000, 3.), 2,
                                     'published', rng)
  values = np.linalg.eigvalsh(np.cov(published.T))
  np.testing.assert_allclose(values, [0., 0., 9., 9.], atol=0.2)
  np.testing.assert_allclose(published.mean(axis=0), snapshots.mean(axis=0),
                             atol=0.05)


def test_low_rank_refuses_what_it_cannot_do():
  snapshots, rng = np.zeros((3, 4)), np.random.default_rng(0)
  with pytest.raises(ValueError, match='components must be from 1 to 2 for 3'):
    samplers.draw_low_rank(snapshots, np.ones(1), 3, 'covariance', rng)
  with pytest.raises(ValueError, match="pca_scale must be one of 'covariance'"):
    samplers.draw_low_rank(snapshots, np.ones(1), 2, 'unit', rng)


def test_draws_are_kept_once_they_are_accurate():
  tries = iter([[0.1, 0.9, 0.2], [0.95, 0.3], [0.25]])

  def draw(num):
    values = next(tries)
    assert len(values) == num
    return np.array(values)[:, None]

  kept, num_accurate = samplers.keep_accurate(
      draw, lambda vectors: vectors[:, 0], 3, least=0.8, max_tries=3)
  # The third never reaches 0.8: the best of its three tries stays.
  assert kept[:, 0].tolist() == [0.95, 0.9, 0.3] and num_accurate == 2


# Verdicts.

@pytest.mark.parametrize('intervals, verdict', [
    ([(0.1, 0.2), (0.01, 0.5)], 'holds'),
    ([(0.1, 0.2), (-0.01, 0.5)], 'undecided'),
    ([(-0.1, 0.2), (-0.3, -0.1)], 'fails')])
def test_judge(intervals, verdict):
  assert verdicts.judge([statistics.Interval((low + high) / 2, low, high)
                         for low, high in intervals]) == verdict


def test_judge_of_nothing_is_not_measured():
  assert verdicts.judge([statistics.Interval(float('nan'))]) == 'not measured'


def test_table_of_verdicts_follows_the_numbers():
  noise = RNG.standard_normal(200) * 0.01
  levels = {'single': 0.8, 'inits': 0.9}
  for name in samplers.SAMPLERS:
    levels |= {name: 0.85, f'inits+{name}': 0.95}
  levels['low_rank'] = 0.75  # Worse than one network.
  levels['inits+dropout'] = 0.88  # Worse than inits alone.
  per_image = {name: {'accuracy': level + noise * (i + 1),
                      'nll': 1. - level + noise * (i + 1)}
               for i, (name, level) in enumerate(levels.items())}
  shares = {name: 0.5 + RNG.random(5) * 0.01 for name in samplers.SAMPLERS}
  shares['inits'] = np.full(5, 0.9)
  shares['random'] = np.full(5, np.nan)
  table = verdicts.make_table(shares, shares, per_image)
  found = table.groupby(['claim', 'method', 'score'])['verdict'].first()
  limit = 'diversity / upper limit'
  assert found['1', 'diagonal', limit] == 'holds'
  assert found['1', 'random', limit] == 'not measured'
  assert found['1b', 'low_rank', 'place between limits'] == 'holds'
  for score in ('accuracy', 'nll'):
    assert found['2', 'diagonal', score] == 'holds'
    assert found['2', 'low_rank', score] == 'fails'
    assert found['3', 'diagonal', score] == 'holds'
    assert found['3', 'dropout', score] == 'fails'
  text = verdicts.markdown(table)
  assert 'no network counts' in text and text.count('\n') == 2 + 8 + 8 + 8


def test_limit_shares_leave_out_inaccurate_networks():
  table = pd.DataFrame({
      'solution': [0, 0, 0, 1, 1], 'method': ['inits', 'x', 'x', 'inits', 'x'],
      'accuracy': [.9, .88, .5, .9, .1], 'solution_accuracy': .9,
      'diversity': [1., .2, 9., .8, 9.], 'upper_limit': 2.,
      'lower_limit': [-.3, .1, 1., .4, 1.]})
  found = subspaces.limit_shares(table, 0.05)
  assert found['inits'].tolist() == [0.5, 0.4]
  assert found['x'][0] == 0.1 and np.isnan(found['x'][1])
  found = subspaces.limit_shares(table, 0.05, from_lower=True)
  # A negative limit is none.
  np.testing.assert_allclose(found['inits'], [0.5, 0.4 / 1.6])
  assert found['x'][0] == pytest.approx(0.1 / 1.9)


def test_running_means_are_those_of_the_first_networks():
  log_probs = categorical.log_softmax(RNG.standard_normal((4, 5, 3)))
  found = subspaces.running_mean_log_probs(log_probs)
  for size in range(1, 5):
    np.testing.assert_allclose(
        np.exp(found[size - 1]), np.exp(log_probs[:size]).mean(axis=0))


def test_hard_examples_against_loops():
  labels = np.array([0, 1, 2, 1])
  logits = RNG.standard_normal((3, 2, 4, 3)).astype(np.float32)
  runs = [trajectories.Run(np.arange(2), np.zeros((2, 1)), one, 0.)
          for one in logits]
  found = hard_examples.find(runs, 2, labels)
  wrong = logits[:, -1].argmax(axis=-1) != labels
  assert found.num_wrong_by_all == sum(wrong.all(axis=0))
  assert found.num_wrong_by_any == sum(wrong.any(axis=0))
  probs = np.exp(logits.astype(np.float64))
  probs /= probs.sum(axis=-1, keepdims=True)
  for n, label in enumerate(labels):
    assert found.losses[1, n] == pytest.approx(
        -np.log(probs[:2, 1, n, label]).mean())
    assert found.final_losses[n] == pytest.approx(
        -np.log(probs[:, 1, n, label]).mean())
  assert found.confusions.sum() == 2 * 2 * 4
  assert np.trace(found.confusions[1]) == np.sum(~wrong[:2])
  table = hard_examples.table(found)
  assert table.groupby('kind').size().to_dict() == {'epochs': 1, 'inits': 3}
  # The last run keeps its end alone.
  runs[2] = trajectories.Run(np.array([1]), runs[2].weights[1:],
                             runs[2].logits[1:], 0.)
  confusions = hard_examples.confusion_table(runs, labels)
  sets = hard_examples.misclassified_table(runs, labels)
  assert list(zip(sets['init'], sets['epoch'])) == [
      (0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]
  assert len(confusions) == 5 * 3
  for place, (init, epoch) in enumerate(zip(sets['init'], sets['epoch'])):
    predicted = [int(np.argmax(logits[init, epoch, n])) for n in range(4)]
    wrong = [n for n in range(4) if predicted[n] != labels[n]]
    assert sets['images'][place] == ' '.join(map(str, wrong))
    assert sets['num_wrong'][place] == len(wrong)
    own = confusions[(confusions['init'] == init)
                     & (confusions['epoch'] == epoch)].set_index('class')
    for label, other in itertools.product(range(3), repeat=2):
      assert own.loc[label, f'predicted_{other}'] == sum(
          labels[n] == label and predicted[n] == other for n in range(4))


# Runs, and the whole study, on digits.

TINY = settings_lib.LandscapeSettings(
    trajectories.TrainingSettings(hidden_sizes=(12,), num_epochs=4,
                                  batch_size=16, learning_rate=0.02),
    num_inits=4, num_last=3, low_rank_components=2, num_samples=3,
    num_plane_samples=4, num_line_points=5, num_grid_points=4, num_embedded=20,
    num_hard=5)


@pytest.fixture(scope='module', name='problem')
def fixture_problem():
  return image_classification.make_image_problem(
      image_classification.ImageProblemConfig(
          'digits', num_train=192, num_val=40, num_test=60))


@pytest.fixture(scope='module', name='forward')
def fixture_forward(problem):
  prior = problem.prior
  return trajectories.Forward(TINY.training.make_body(prior),
                              prior.input_shape)


def get_runs(problem, forward, folder, say=lambda text: None):
  return trajectories.get_runs(TINY.training, problem, forward, TINY.num_inits,
                               TINY.num_trajectories, TINY.num_last, folder,
                               say)


def plain_logits(vector, x):
  """The MLP of TINY by hand: rows of a layer are its units, bias last."""
  x = x.reshape(len(x), -1).astype(np.float64)
  w0 = vector[:12 * 65].reshape(12, 65)
  w1 = vector[12 * 65:].reshape(10, 13)
  hidden = np.maximum(x @ w0[:, :-1].T + w0[:, -1], 0.)
  return hidden @ w1[:, :-1].T + w1[:, -1]


def test_runs_are_trained_kept_and_found_again(problem, forward, tmp_path):
  told = []
  runs = get_runs(problem, forward, tmp_path, told.append)
  assert [line.split()[2] for line in told] == ['trained'] * 4
  assert runs[0].epochs.tolist() == [0, 1, 2, 3, 4]
  assert runs[3].epochs.tolist() == [2, 3, 4]
  np.testing.assert_allclose(
      runs[1].logits[-1], plain_logits(runs[1].weights[-1], problem.x_test),
      atol=1e-4)
  # They have learnt, and are not the same.
  accuracy = [np.mean(run.logits[-1].argmax(-1) == problem.test.labels)
              for run in runs]
  assert min(accuracy) > 0.4
  assert np.mean(runs[0].logits[0].argmax(-1) == problem.test.labels) < 0.3
  assert not np.array_equal(runs[0].weights[0], runs[1].weights[0])
  # What was killed goes on: a missing and a damaged run are made anew.
  paths = sorted(tmp_path.glob('run_*'))
  paths[0].unlink()
  paths[1].write_bytes(paths[1].read_bytes()[:-1])
  told.clear()
  again = get_runs(problem, forward, tmp_path, told.append)
  assert [line.split()[2].rstrip(':') for line in told] == [
      'trained', 'trained', 'read', 'read']
  for run, other in zip(runs, again):
    np.testing.assert_array_equal(run.weights, other.weights)
    np.testing.assert_array_equal(run.logits, other.logits)


def test_kernels_are_what_is_no_bias(forward):
  is_bias = ~forward.kernel_entries
  assert np.flatnonzero(is_bias).tolist() == [
      65 * (i + 1) - 1 for i in range(12)] + [
          12 * 65 + 13 * (i + 1) - 1 for i in range(10)]


def test_norms_and_biases_of_a_residual_network_are_no_kernels():
  settings = trajectories.TrainingSettings(body='resnet20')
  problem = image_classification.make_image_problem(
      image_classification.ImageProblemConfig('digits'))
  body = settings.make_body(problem.prior)
  forward = trajectories.Forward(body, problem.prior.input_shape)
  assert len(forward.kernel_entries) == body.num_parameters(
      problem.prior.input_shape)
  # 3 x 3 convolutions of 19 layers, two projections, the output.
  sizes = [9 * 1 * 16] + 6 * [9 * 16 * 16] + [9 * 16 * 32] + 5 * [
      9 * 32 * 32] + [9 * 32 * 64] + 5 * [9 * 64 * 64] + [
          16 * 32, 32 * 64, 64 * 10]
  assert forward.kernel_entries.sum() == sum(sizes)


@pytest.mark.parametrize('num_networks, num_images', [(1, 3), (7, 60)])
def test_forward_of_blocks(forward, problem, num_networks, num_images):
  vectors = RNG.standard_normal((num_networks, len(forward.kernel_entries)))
  x = problem.x_test[:num_images]
  np.testing.assert_allclose(
      forward.logits(vectors, x),
      [plain_logits(vector, x) for vector in vectors], rtol=1e-3, atol=1e-3)


def test_the_study_from_runs_to_files(problem, forward, tmp_path):
  paths = study.run_study(TINY, problem, tmp_path, tmp_path / 'snapshots',
                          say=lambda text: None)
  runs = get_runs(problem, forward, tmp_path / 'snapshots')
  labels = problem.test.labels
  tables = {name.removesuffix('.csv'): pd.read_csv(path)
            for name, path in paths.items() if name.endswith('.csv')}
  for name, path in paths.items():
    if name.endswith('.png'):
      assert path.read_bytes().startswith(b'\x89PNG'), name

  # An ensemble of two inits, by hand, over all six pairs.
  probs = np.exp([run.log_probs[-1] for run in runs])
  pairs = list(itertools.combinations(range(4), 2))
  expected = np.mean([np.mean((probs[i] + probs[j]).argmax(-1) == labels)
                      for i, j in pairs])
  curves = tables['ensembles'].set_index(['method', 'size'])
  assert curves.loc[('inits', 2), 'accuracy'] == pytest.approx(expected)
  assert curves.loc[('inits', 2), 'num_ensembles'] == 6
  nll = np.mean([-np.log(run_probs[np.arange(60), labels]).mean()
                 for run_probs in probs])
  assert curves.loc[('inits', 1), 'nll'] == pytest.approx(nll)
  # One network with averaged weights, by hand.
  means = [run.weights[-3:].astype(np.float64).mean(axis=0) for run in runs]
  expected = np.mean([np.mean(plain_logits(mean, problem.x_test).argmax(-1)
                              == labels) for mean in means])
  assert curves.loc[('averaged_snapshots', 3), 'accuracy'] == pytest.approx(
      expected)
  assert set(tables['ensembles']['method']) == {
      'inits', 'snapshots', 'averaged_snapshots', 'averaged_inits',
      *samplers.SAMPLERS, *map(ensembles.together, samplers.SAMPLERS)}

  lines = tables['lines']
  ends = lines[(lines['line'] == 'run 0 - run 1') & (lines['images'] == 'test')]
  for end, run in ((0, runs[0]), (-1, runs[1])):
    assert ends['nll'].iloc[end] == pytest.approx(
        categorical.nll(run.log_probs[-1], labels), rel=1e-4)
  plane = tables['plane']
  assert len(plane) == 16 and plane['agreement_2'].between(0, 1).all()
  diversity = tables['diversity']
  assert diversity.groupby('method').size().to_dict() == {
      'inits': 12, **dict.fromkeys(samplers.SAMPLERS, 16)}
  embedded = tables['embedding'].groupby('embedded').size().to_dict()
  assert embedded == {'runs': 15, 'runs and samples': 15 + 12}
  assert len(tables['similarity']) == 10 + 6
  # Three runs with five snapshots, one with three.
  ends = tables['misclassified'].groupby('init').last()
  assert len(tables['misclassified']) == 18
  assert ends['num_wrong'].tolist() == [
      sum(run.logits[-1].argmax(-1) != labels) for run in runs]
  confusions = tables['confusions']
  columns = [name for name in confusions if name.startswith('predicted_')]
  sums = confusions.groupby(['init', 'epoch'])[columns].sum().sum(axis=1)
  assert sums.tolist() == [60] * 18

  page = paths['hard_examples.html'].read_text()
  epochs = json.loads(re.search(r'const EPOCHS = (.*);', page)[1])
  assert [one['epoch'] for one in epochs] == [0, 1, 2, 3, 4]
  assert all(len(one['hardest']) == 5 for one in epochs)
  assert sum(map(sum, epochs[0]['confusion'])) == 3 * 60
  assert 'http' not in page  # It needs nothing but itself.


@pytest.mark.parametrize('changes, message', [
    ({'num_trajectories': 2}, 'num_trajectories must be an integer >= 3'),
    ({'num_inits': 2}, 'num_inits must be an integer >= 3, got 2'),
    ({'num_last': 5}, 'num_last must be an integer >= 6, got 5'),
    ({'pca_scale': 'unit'}, "pca_scale must be one of 'covariance'"),
    ({'num_last': 41}, 'num_last must be at most num_epochs 40, got 41')])
def test_settings_refuse(changes, message):
  with pytest.raises(ValueError, match=message):
    settings_lib.LandscapeSettings(**changes)


@pytest.mark.parametrize('changes, message', [
    ({'norm': 'batch'}, "norm must be one of 'group', 'none'"),
    ({'body': 'vgg'}, 'body must be one of'),
    ({'dropout': 1.}, r'dropout must be in \[0, 1\)')])
def test_training_settings_refuse(changes, message):
  with pytest.raises(ValueError, match=message):
    trajectories.TrainingSettings(**changes)


def test_the_study_needs_validation_images(problem, tmp_path):
  without = dataclasses.replace(problem, val=None)
  with pytest.raises(ValueError, match='num_val must be at least 1'):
    study.run_study(TINY, without, tmp_path, tmp_path)


def test_kl_by_size_is_the_mean_over_subsets():
  rng = np.random.default_rng(0)
  members = rng.standard_normal((3, 40))
  problem = types.SimpleNamespace(test_mean=np.zeros(40), test_std=np.ones(40),
                                  noise_std=0.5)
  lines = testbed_curve.by_size(members, problem, (1, 2, 3))
  assert [line['size'] for line in lines] == [1, 2, 3]
  whole = gaussian.posterior_scores(members.mean(0), members.std(0),
                                    np.zeros(40), np.ones(40), num_samples=3)
  assert lines[2]['kl_estimate'] == pytest.approx(whole['kl_estimate'])
  # Of one member: labels N(f, 0.25) for N(0, 1.25), the mean over members.
  ratio = 1.25 / 0.25
  expected = 0.5 * (np.mean(members**2) / 0.25 + ratio - 1. - np.log(ratio))
  assert lines[0]['kl_labels'] == pytest.approx(expected, rel=0.1)
  assert lines[0]['kl_estimate'] > 1e4 > lines[1]['kl_estimate']
