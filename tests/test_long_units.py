"""Units that take long are spoken of, at growing intervals."""

import time

from enn_ensembles import sweeps
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import long_units


def make_units():
  return sweeps.expand(sweeps.SweepConfig(
      'test', (0,), ({'agent': 'hypermodel'}, {'agent': 'prior_only'}),
      {'input_dim': (10,), 'data_ratio': (10.,), 'noise_std': (0.1,)}))


def test_only_what_runs_long_is_spoken_of():
  slow, quick = make_units()
  cost_model.estimate_seconds(slow)  # Which is kept.
  lines = []
  with long_units.LongUnits(lines.append, seconds=0.2) as watch:
    watch.announce([slow, quick])
    time.sleep(0.05)
    watch.announce([slow])  # The other is done before its time.
    time.sleep(2.)
  assert 1 <= len(lines) <= 4  # After 0.2, 0.4, 0.8, 1.6 s.
  assert all(line.startswith('hypermodel on D10_l10_bayes: running for ')
             and line.endswith(' left') for line in lines)


def test_nothing_is_promised_where_nothing_is_known():
  quick = make_units()[1]
  lines = []
  with long_units.LongUnits(lines.append, seconds=0.1) as watch:
    watch.announce([quick])
    time.sleep(0.5)
  assert lines and lines[0] == 'prior_only on D10_l10_bayes: running for 0 s'
