"""Similarity of members, against scipy's quadrature and closed forms."""

import numpy as np
import pytest
from scipy import integrate
from scipy import stats

from enn_ensembles.scoring import diversity

RNG = np.random.default_rng(0)


def quadrature_jsd(mean_p, mean_q, std):
  p, q = stats.norm(mean_p, std), stats.norm(mean_q, std)
  def integrand(x):
    log_p, log_q = p.logpdf(x), q.logpdf(x)
    log_m = np.logaddexp(log_p, log_q) - np.log(2.)
    return 0.5 * (np.exp(log_p) * (log_p - log_m)
                  + np.exp(log_q) * (log_q - log_m))
  low, high = sorted((mean_p, mean_q))
  return integrate.quad(integrand, low - 12 * std, high + 12 * std, limit=500,
                        points=[mean_p, mean_q], epsabs=1e-13,
                        epsrel=1e-12)[0]


@pytest.mark.parametrize('mean_p, mean_q, std', [
    (0., 0.1, 1.), (1., -1., 1.), (0.3, 0.9, 0.1), (2., -3., 0.5),
    (0., 10., 1.), (5., 5.2, 3.)])
def test_jensen_shannon_is_the_integral(mean_p, mean_q, std):
  found = diversity.jensen_shannon(mean_p, mean_q, std)
  assert found == pytest.approx(quadrature_jsd(mean_p, mean_q, std), rel=1e-8)


def test_jensen_shannon_limits():
  assert diversity.jensen_shannon(0.7, 0.7, 0.1) == 0.
  assert diversity.jensen_shannon(0., 1e3, 0.1) == pytest.approx(np.log(2.))
  # d^2 / 8 for means d stds apart, on both sides of the switch to the series.
  gap = np.array([1e-8, 1e-5, 1e-3, 1.9e-3, 2.1e-3, 1e-2])
  np.testing.assert_allclose(
      diversity.jensen_shannon(0., gap, 1.), gap**2 / 8, rtol=2e-5)
  grid = diversity.jensen_shannon(0., np.linspace(0., 30., 500), 1.)
  assert np.all(np.diff(grid) >= -1e-15) and grid.max() <= np.log(2.) + 1e-12
  np.testing.assert_allclose(diversity.jensen_shannon(1., 2., 0.3),
                             diversity.jensen_shannon(2., 1., 0.3))
  with pytest.raises(ValueError, match='std'):
    diversity.jensen_shannon(0., 1., 0.)


def test_mean_jensen_shannon_averages_points():
  predictions = RNG.normal(size=(3, 4))
  pairs = [(0, 1), (1, 2)]
  expected = [np.mean([quadrature_jsd(predictions[i, n], predictions[j, n], .5)
                       for n in range(4)]) for i, j in pairs]
  np.testing.assert_allclose(
      diversity.mean_jensen_shannon(predictions, 0.5, pairs), expected,
      rtol=1e-8)


def test_disagreement_counts_signs():
  predictions = np.array([[1., 1., -1., 0.], [1., -1., -2., 3.],
                          [-1., -1., 1., -1.]])
  np.testing.assert_array_equal(
      diversity.sign_disagreement(predictions, [(0, 0), (0, 1), (0, 2)]),
      [0., 0.25, 1.])
  # Independent symmetric predictions disagree half of the time.
  found = diversity.sign_disagreement(RNG.normal(size=(2, 20000)), [(0, 1)])
  assert found[0] == pytest.approx(0.5, abs=0.02)


def test_correlation_is_pearsons():
  predictions = RNG.normal(size=(4, 50)) + 3.
  pairs = diversity.member_pairs(4)
  np.testing.assert_allclose(
      diversity.correlation(predictions, pairs),
      [stats.pearsonr(predictions[i], predictions[j])[0] for i, j in pairs],
      rtol=1e-10)
  predictions[0] = 1.
  assert np.isnan(diversity.correlation(predictions, [(0, 1)])[0])


def test_cosine_of_known_angles():
  vectors = np.array([[2., 0.], [1., 1.], [-3., 0.], [0., 5.]])
  np.testing.assert_allclose(
      diversity.cosine(vectors, [(0, 1), (0, 2), (0, 3), (1, 1)]),
      [np.sqrt(0.5), -1., 0., 1.], atol=1e-15)
  # Does not depend on length, unlike a correlation not on the origin either.
  scaled = vectors * np.array([[1e-3], [7.], [1.], [1e4]])
  np.testing.assert_allclose(diversity.cosine(scaled, [(0, 1)]),
                             [np.sqrt(0.5)])


def test_pairs():
  assert diversity.member_pairs(3) == [(0, 1), (0, 2), (1, 2)]
  few = diversity.member_pairs(27, 45)
  assert len(set(few)) == 45 and all(i < j < 27 for i, j in few)
  assert {i for pair in few for i in pair} >= set(range(20))
  for arguments in ((1,), (3, 0)):
    with pytest.raises(ValueError):
      diversity.member_pairs(*arguments)
  with pytest.raises(ValueError, match='predictions'):
    diversity.sign_disagreement(np.ones(3), [(0, 1)])
