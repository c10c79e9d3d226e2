"""The study of empirical Bayes: mathematics, weights, rules, evidence."""

import json

import commands
import example_rows
import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from scipy import special
from scipy import stats
from sklearn import gaussian_process
from sklearn.gaussian_process import kernels as sklearn_kernels

from enn_ensembles.machine import devices
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import marginal_likelihood
from enn_ensembles.report import statistics
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import weighting
from enn_ensembles.studies.empirical_bayes import diversity
from enn_ensembles.studies.empirical_bayes import drawing
from enn_ensembles.studies.empirical_bayes import measuring
from enn_ensembles.studies.empirical_bayes import units
from enn_ensembles.studies.empirical_bayes import verdicts

RNG = np.random.default_rng(0)
LOG_LIKELIHOODS = np.array([-3., -1., -2., -1.5])
PRIOR = np.array([0.1, 0.2, 0.3, 0.4])


def test_evidence_of_scipy():
  with devices.x64_mode(True):
    kernel = kernels.nngp(kernels.KernelConfig(), RNG.standard_normal((7, 3)))
  y = RNG.standard_normal(7)
  got = marginal_likelihood.log_marginal_likelihood(kernel, y, 0.3)
  expected = stats.multivariate_normal.logpdf(
      y, np.zeros(7), kernel + 0.3 * np.eye(7))
  np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_evidence_of_scikit_learn():
  x, y = RNG.standard_normal((9, 2)), RNG.standard_normal(9)
  kernel = sklearn_kernels.RBF(1.3)
  process = gaussian_process.GaussianProcessRegressor(
      kernel, alpha=0.05, optimizer=None).fit(x, y)
  np.testing.assert_allclose(
      marginal_likelihood.log_marginal_likelihood(kernel(x), y, 0.05),
      process.log_marginal_likelihood(), rtol=1e-12)


@pytest.mark.parametrize('kernel, y, variance, name', [
    (np.eye(2), np.zeros(3), 1., 'kernel must have shape'),
    (np.eye(2), np.zeros(2), 0., 'noise_variance'),
    (-np.eye(2), np.zeros(2), 0.5, 'positive definite')])
def test_evidence_refuses(kernel, y, variance, name):
  with pytest.raises(ValueError, match=name):
    marginal_likelihood.log_marginal_likelihood(kernel, y, variance)


def test_posterior_weights_are_bayes_rule():
  joint = PRIOR * np.exp(LOG_LIKELIHOODS)
  np.testing.assert_allclose(
      weighting.posterior_weights(LOG_LIKELIHOODS, PRIOR), joint / joint.sum())
  np.testing.assert_allclose(
      weighting.log_evidence(LOG_LIKELIHOODS, PRIOR), np.log(joint.sum()))
  # What underflows as a likelihood does not as a logarithm.
  np.testing.assert_allclose(
      weighting.posterior_weights(LOG_LIKELIHOODS - 1e5, PRIOR),
      joint / joint.sum())


def test_tempered_weights():
  np.testing.assert_allclose(
      weighting.posterior_weights(LOG_LIKELIHOODS, power=0.), np.full(4, .25))
  roots = np.exp(LOG_LIKELIHOODS) ** 0.3
  np.testing.assert_allclose(
      weighting.posterior_weights(LOG_LIKELIHOODS, power=0.3),
      roots / roots.sum())
  sizes = [weighting.effective_sample_size(rule.weigh(LOG_LIKELIHOODS, None))
           for name, rule in weighting.RULES.items() if name != 'stacking']
  assert sizes == sorted(sizes, reverse=True) and sizes[0] == 4.


def test_em_reaches_the_largest_likelihood_and_never_falls():
  em = weighting.maximise_mixture(LOG_LIKELIHOODS[:, None], PRIOR,
                                  tolerance=1e-10)
  assert (np.diff(em.log_likelihoods) >= -1e-14).all()
  np.testing.assert_allclose(em.log_likelihoods[-1], -1., atol=1e-9)
  np.testing.assert_allclose(em.weights, [0, 1, 0, 0], atol=1e-9)
  # A step is Bayes' rule: n steps are the likelihood to the power n.
  three = weighting.maximise_mixture(LOG_LIKELIHOODS[:, None], PRIOR,
                                     max_steps=3)
  np.testing.assert_allclose(
      three.weights,
      weighting.posterior_weights(LOG_LIKELIHOODS, PRIOR, power=3.))


def test_evidence_equals_the_maximum_only_on_maximisers():
  tied = np.array([-2., -1., -1.])
  on_them = np.array([0., 0.7, 0.3])
  np.testing.assert_allclose(weighting.log_evidence(tied, on_them), -1.)
  # There prior and posterior are the same, and EM stays.
  np.testing.assert_allclose(weighting.posterior_weights(tied, on_them),
                             on_them)
  for weights in RNG.dirichlet(np.ones(3), 20):
    assert weighting.log_evidence(tied, weights) < -1.


def test_stacking_finds_scipys_maximum():
  densities = RNG.normal(size=(3, 40))
  found = weighting.maximise_mixture(densities, tolerance=1e-9,
                                     max_steps=20_000)
  best = optimize.minimize(
      lambda free: -np.mean(special.logsumexp(
          densities + special.log_softmax(free)[:, None], axis=0)),
      np.zeros(3))
  np.testing.assert_allclose(found.log_likelihoods[-1], -best.fun, atol=1e-8)
  assert (np.diff(found.log_likelihoods) >= -1e-14).all()
  # The bound of the gap holds on the way too.
  early = weighting.maximise_mixture(densities, max_steps=3)
  assert -best.fun - early.log_likelihoods[-1] <= early.gap


def test_weighted_moments():
  samples = RNG.normal(size=(4, 5))
  mean, std = weighting.weighted_moments(samples, np.full(4, 0.25))
  expected = gaussian.sample_moments(samples, 0)
  np.testing.assert_allclose(mean, expected[0])
  np.testing.assert_allclose(std, expected[1])
  repeated = samples[[0, 1, 1, 2]]
  mean, std = weighting.weighted_moments(samples,
                                         np.array([0.25, 0.5, 0.25, 0.]))
  np.testing.assert_allclose(mean, repeated.mean(axis=0))
  np.testing.assert_allclose(std, repeated.std(axis=0))


def test_the_bound_is_scipys():
  labels = RNG.normal(size=6)
  np.testing.assert_allclose(
      measuring.gaussian_bound(6, 0.4),
      stats.norm.logpdf(labels, labels, 0.4).sum())


@pytest.fixture(name='measured', scope='module')
def measure_small_units():
  """Tables of small ensembles, really trained, on both kinds of problems."""
  ensembles, weights = [], []
  with devices.x64_mode(True):
    for problem, kind, seeds in (('D10_l1', 'plain', 2),
                                 ('D10_l1', 'near_equal', 2),
                                 (units.DIGITS, 'plain', 1)):
      for seed in range(seeds):
        found = units.run(units.Unit(problem, kind, seed, (2, 4), 40, (0, 40),
                                     hidden_sizes=(8,)))
        ensembles += found[0]
        weights += found[1]
  return pd.DataFrame(ensembles), pd.DataFrame(weights)


def test_mathematics_on_real_members(measured):
  ensembles, _ = measured
  assert set(ensembles['num_train']) == {10, 1079}
  assert (ensembles['spread_range'] > 0).all()
  assert (ensembles['distance_best'] > 0).all()  # None interpolates yet.
  assert (ensembles['evidence_uniform']
          < ensembles['log_likelihood_max']).all()
  lines = verdicts.judge(*measured)
  assert lines[0].verdict == verdicts.HOLDS_AS_MATHEMATICS
  broken = ensembles.assign(evidence_excess=1e-3)
  assert verdicts.judge(broken, measured[1])[0].verdict == verdicts.VIOLATED


def test_lines_of_weights(measured):
  _, weights = measured
  last = weights[weights['steps'] == 40]
  assert set(last['rule']) == {*weighting.RULES, 'single'}
  for _, group in last.groupby(
      ['problem', 'noise_std', 'kind', 'seed', 'num_members'], dropna=False):
    nll = group.set_index('rule')['nll']
    assert nll['uniform'] <= nll['single']  # Jensen.
  scores = last[last['problem'] == units.DIGITS]
  assert scores['accuracy'].between(0, 1).all()
  assert scores['kl_estimate'].isna().all()


def test_near_equal_inits_collapse(measured):
  ensembles, weights = measured
  start = ensembles[(ensembles['steps'] == 0) & (ensembles['noise_std'] == 1.)]
  spread = start.groupby('kind')['spread_range'].mean()
  assert spread['near_equal'] < 0.02 * spread['plain']
  last = weights[(weights['steps'] == 40) & (weights['noise_std'] == 1.)
                 & (weights['kind'] == 'near_equal')]
  nll = last.groupby('rule')['nll'].mean()
  np.testing.assert_allclose(nll['uniform'], nll['single'], rtol=1e-3)


def test_images_of_files_are_measured_in_blocks(tmp_path, monkeypatch):
  rng = np.random.default_rng(1)
  np.savez(tmp_path / 'mine.npz', **{
      f'{name}_{split}': values for split in ('train', 'test')
      for name, values in (
          ('x', rng.integers(0, 256, (60, 4, 4), np.uint8)),
          ('y', rng.permutation(60) % 3))})
  unit = units.Unit('npz:mine', 'plain', 0, (2,), 5, (0, 5), hidden_sizes=(4,))
  assert units.is_images('npz:mine') and not units.is_images('D10_l1')
  whole = units.run(unit, str(tmp_path))
  monkeypatch.setattr(units, '_POINT_BLOCK', 50)  # Of 120 images.
  for one, other in zip(whole, units.run(unit, str(tmp_path)), strict=True):
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other),
                                  rtol=1e-5, atol=1e-6)
  assert whole[0][0]['num_train'] == 54 and whole[0][0]['noise_std'] is None


def test_the_command_says_what_its_units_cost(tmp_path):
  flags = [f'--output_dir={tmp_path}', '--problems=digits', '--kinds=plain',
           '--num_digits_seeds=2', '--num_members=2,3', '--num_batches=3']
  for more in ([], ['--only_kept']):
    (code, out, error), = commands.run_commands('empirical_bayes',
                                                flags + more)
    assert code == 0 and 'exact averaging' in out, error
  seconds = pd.read_csv(tmp_path / 'seconds.csv')
  assert seconds['seed'].tolist() == [0, 1]
  assert (seconds[['cpu_seconds', 'peak_memory_mb']] > 0).all(axis=None)
  kept, other = sorted((tmp_path / 'units').iterdir())
  for text in (other.read_text(), json.dumps({
      name: [] for name in ('ensembles', 'weights', 'seconds')})):
    kept.write_text(text)
    commands.check_refused('empirical_bayes', [
        ([*flags, '--only_kept'], 'it holds something else than its part')])


def test_pictures_and_text(measured):
  ensembles, weights = measured
  pictures = drawing.pictures(ensembles, weights)
  assert set(pictures) == {'tempering.png', 'training.png', 'evidence.png'}
  lines = verdicts.judge(ensembles, weights)
  # The testbed's three noise levels of two kinds, and digits; twice.
  assert len(lines) == 1 + 2 * 7
  assert '| 1. exact averaging | holds as mathematics |' in verdicts.text(lines)


@pytest.mark.parametrize('interval, verdict', [
    ((0.95, 0.91, 0.99), verdicts.HOLDS), ((0.2, 0.1, 0.3), verdicts.NOT),
    ((0.7, 0.6, 0.8), verdicts.PARTLY),
    ((0.5, 0.4, 0.6), verdicts.INCONCLUSIVE),
    ((0.95, None, None), verdicts.INCONCLUSIVE)])
def test_rule_of_shares(interval, verdict):
  assert verdicts.judge_share(statistics.Interval(*interval)) == verdict


@pytest.mark.parametrize('share, verdict', [
    (1., verdicts.EXPLAINS), (0.7, verdicts.PARTLY),
    (0.1, verdicts.NOT_EXPLAINED), (0.9, verdicts.INCONCLUSIVE)])
def test_rule_of_gains(share, verdict):
  uniform = np.array([1., 1.1, 0.9])
  exact = share * uniform + np.array([0.001, 0., -0.001])
  assert verdicts.judge_gain(uniform, exact) == verdict
  assert verdicts.judge_gain(-uniform, exact) == verdicts.NOTHING


@pytest.mark.parametrize('changes, name', [
    ({'problem': 'D10'}, 'problem'), ({'problem': 'mnits'}, "got 'mnits'"),
    ({'kind': 'other'}, 'kind'),
    ({'snapshots': (0, 10)}, 'snapshots')])
def test_units_refuse(changes, name):
  with pytest.raises(ValueError, match=name):
    units.Unit(**{'problem': 'D10_l1', 'kind': 'plain', 'seed': 0, **changes})


@pytest.mark.parametrize('name', [
    'empirical_bayes', 'empirical_bayes_mnist',
    'empirical_bayes_mnist_converged'])
def test_published_verdicts_follow_from_the_published_tables(name):
  folder = example_rows.ROOT / 'leaderboards' / name
  lines = verdicts.judge(*(pd.read_csv(folder / f'{name}.csv')
                           for name in ('ensembles', 'weights')))
  published = pd.read_csv(folder / 'verdicts.csv')
  # Claim 1 is about rounding, and the tables have six digits.
  assert published['verdict'][0] == verdicts.HOLDS_AS_MATHEMATICS
  assert ([line.verdict for line in lines[1:]]
          == published['verdict'].tolist()[1:])


def test_diversity_comes_from_what_differs(monkeypatch):
  near = 'initial weights, a thousandth as different'
  monkeypatch.setattr(diversity, 'VARIANTS', {
      name: diversity.VARIANTS[name]
      for name in ('initial weights', 'order of data', near)})
  settings = diversity.DiversitySettings(
      num_members=2, snapshots=(0, 3), batch_size=32, hidden_sizes=(4,))
  table = pd.DataFrame(diversity.run(settings))
  found = table.set_index(['variant', 'steps'])['epistemic_uncertainty']
  assert set(table['variant']) == set(diversity.VARIANTS)
  # Members with the same initial weights are one, until their data differ.
  assert found['order of data', 0] < 1e-12 < found['order of data', 3]
  # The closer members start, the closer they are: by the square.
  assert found[near, 3] < 1e-4 * found['initial weights', 3]
  assert diversity.picture(table).startswith(b'\x89PNG')
