"""Each verdict comes out of some interval, and Holm judges a family of them."""

import math

import numpy as np
import pytest
from scipy import stats

from enn_ensembles.report import statistics
from enn_ensembles.studies.layer_ensembles import verdicts

Interval = statistics.Interval


@pytest.mark.parametrize('found, verdict', [
    (Interval(2.1, 1.9, 2.3), 'reproduced'),
    (Interval(1.85, 1.8, 2.), 'reproduced'),  # From 0.9 * 2 on.
    (Interval(1.65, 1.55, 1.75), 'partly'),  # More than half, less than all.
    (Interval(1.01, 1.001, 1.02), 'not reproduced'),
    (Interval(0.5, 0.4, 0.6), 'not reproduced'),
    (Interval(0.3, 0.056, 1.31), 'not reproduced'),
    (Interval(1.85, 1.7, 2.), 'inconclusive'),
    (Interval(1.5, 1.4, 1.6), 'inconclusive'),
    (Interval(3., 0.9, 9.), 'inconclusive')])
def test_judge_factor(found, verdict):
  assert verdicts.judge_factor(2.)(found) == verdict


@pytest.mark.parametrize('found, verdict', [
    (Interval(1.1, 1.01, 1.2), 'reproduced'),
    (Interval(1.1, 0.9, 1.3), 'inconclusive'),
    (Interval(0.3, 0.056, 1.31), 'inconclusive'),
    (Interval(0.9, 0.8, 0.99), 'not reproduced')])
def test_judge_better(found, verdict):
  assert verdicts.judge_better(found) == verdict


@pytest.mark.parametrize('found, verdict', [
    (Interval(0.03, 0.01, 0.05), 'reproduced'),
    (Interval(0.05, 0.01, 0.09), 'inconclusive'),
    (Interval(0.08, 0.07, 0.09), 'not reproduced')])
def test_judge_at_most(found, verdict):
  assert verdicts.judge_at_most(0.06)(found) == verdict


@pytest.mark.parametrize('found, verdict', [
    (Interval(36, 30., 42.), 'reproduced'), (Interval(36, 20., 42.),
                                             'inconclusive'),
    (Interval(60, 50., 70.), 'not reproduced')])
def test_judge_within(found, verdict):
  assert verdicts.judge_within(27, 45)(found) == verdict


def measured(low, high, log=True, num_seeds=10):
  middle = math.sqrt(low * high) if log else (low + high) / 2
  line = verdicts.Line('x', '', '', '', '', num_seeds=num_seeds)
  return verdicts.Measured(line, Interval(middle, low, high),
                           verdicts.judge_better, log)


def p_value(one):
  """Of the ratio being 1: Student's t on the logarithm."""
  half = math.log(one.found.high / one.found.low) / 2
  error = half / stats.t.ppf(0.975, one.line.num_seeds - 1)
  return 2 * stats.t.sf(abs(math.log(one.found.value)) / error,
                        one.line.num_seeds - 1)


def test_a_family_is_judged_by_holm():
  rng = np.random.default_rng(0)
  num_decided = 0
  for _ in range(50):
    family = []
    for _ in range(4):
      centre, half = 0.3 * rng.normal(), 0.2 * rng.gamma(2.)
      family.append(measured(math.exp(centre - half), math.exp(centre + half)))
    want = ['inconclusive'] * 4
    for rank, i in enumerate(np.argsort([p_value(one) for one in family])):
      if p_value(family[i]) > 0.05 / (4 - rank):
        break  # Holm stops at the first that is not rejected.
      want[i] = ('reproduced' if family[i].found.value > 1 else
                 'not reproduced')
    got = [line.verdict for line in verdicts.judge_family(family)]
    assert got == want
    num_decided += sum(verdict != 'inconclusive' for verdict in got)
  assert 20 < num_decided < 180
  # One line alone is judged at the interval that it shows.
  assert verdicts.judge_family([measured(1.001, 1.2)])[0].verdict == (
      'reproduced')
  # Without an interval nothing is decided.
  for found in (Interval(3.), Interval(math.inf, math.nan, math.nan)):
    one = verdicts.Measured(measured(1., 2.).line, found, verdicts.judge_better)
    assert verdicts.judge_family([one])[0].verdict == 'inconclusive'
