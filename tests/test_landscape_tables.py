"""Tables of the loss landscape: verdicts, limits, hard examples, sizes."""

import itertools
import types

import numpy as np
import pandas as pd
import pytest

from enn_ensembles.report import statistics
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import gaussian
from enn_ensembles.studies.loss_landscape import hard_examples
from enn_ensembles.studies.loss_landscape import samplers
from enn_ensembles.studies.loss_landscape import subspaces
from enn_ensembles.studies.loss_landscape import testbed_curve
from enn_ensembles.studies.loss_landscape import trajectories
from enn_ensembles.studies.loss_landscape import verdicts

RNG = np.random.default_rng(0)


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
