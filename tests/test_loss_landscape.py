"""The study of the loss landscape: settings, runs and files, on digits."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest

from enn_ensembles.problems import image_classification
from enn_ensembles.scoring import categorical
from enn_ensembles.studies.loss_landscape import ensembles
from enn_ensembles.studies.loss_landscape import samplers
from enn_ensembles.studies.loss_landscape import settings as settings_lib
from enn_ensembles.studies.loss_landscape import study
from enn_ensembles.studies.loss_landscape import trajectories

RNG = np.random.default_rng(0)
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
  assert len(forward.kernel_entries) == sum(
      shape.out * shape.columns
      for shape in body.weight_shapes(problem.prior.input_shape))
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
    ({'body': 'mlp_dropout'}, 'body must be one of'),
    ({'dropout': 1.}, r'dropout must be in \[0, 1\)')])
def test_training_settings_refuse(changes, message):
  with pytest.raises(ValueError, match=message):
    trajectories.TrainingSettings(**changes)


def test_the_study_needs_validation_images(problem, tmp_path):
  without = dataclasses.replace(problem, val=None)
  with pytest.raises(ValueError, match='num_val must be at least 1'):
    study.run_study(TINY, without, tmp_path, tmp_path)
