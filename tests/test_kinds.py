"""Kinds of problems: one file adds one, and sweeps know it."""

import sys

import faulty_agent
import numpy as np
import pytest

from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.problems import kinds
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import workers

# y = slope x, known exactly: the posterior is the line itself with std 1.
LINES = '''
"""Lines through the origin."""

import dataclasses

import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.problems import kinds
from enn_ensembles.scoring import gaussian

CONFIG_NAMES = {'SLOPE': kinds.ConfigName(checks.check_positive)}


class Line:
  score_set = 'nngp'
  validation = None

  def __init__(self, slope, seed):
    x = np.random.default_rng(seed).standard_normal((6, 1))
    self.problem_id = f'line{slope:g}_s{seed}'
    self.data = base.Data(x, slope * x)
    self.prior = base.PriorKnowledge((1,), 6, base.Gaussian(0.1))
    self._slope = slope

  def score(self, predict):
    x = np.linspace(-1., 1., 5)[:, None]
    predictions = predict(x)
    mean, std = gaussian.prediction_moments(predictions)
    return gaussian.posterior_scores(
        mean, std, self._slope * x[:, 0] + 9., np.ones(5),
        num_samples=predictions.num_samples)


@dataclasses.dataclass(frozen=True)
class Lines:
  slopes: tuple

  kind = 'lines'
  score_set = 'nngp'
  name = 'lines'
  ranking = {}
  input_shape = (1,)
  num_train = 6

  @property
  def cells(self):
    return tuple({'slope': slope} for slope in self.slopes)

  def check(self, settings):
    if max(self.slopes) > 50:
      raise ValueError(f'slopes must be at most 50, got {self.slopes}.')

  def make(self, seed, settings):
    return [Line(slope, seed) for slope in self.slopes]

  def prior(self):
    return base.PriorKnowledge((1,), 6, base.Gaussian(1.))

  def facts(self):
    return {'num_train': 6}

  def problem_id(self, cell, seed):
    return f"line{cell['slope']:g}_s{seed}"

  def narrow(self, cells):
    return Lines(tuple(cell['slope'] for cell in cells))


def make_families(values):
  return [Lines(tuple(map(float, values['slope'])))]
'''

CONFIG = '''
PROBLEMS = 'lines'
SLOPE = [1, 2]
SEED = [0, 1]
AGENTS = [{'agent': 'ensemble', 'num_ensemble': 4, 'num_batches': 2,
           'hidden_sizes': (3,)}, {'agent': 'my_agent', 'what': 'members'}]
'''


@pytest.fixture(name='folder')
def add_kind(tmp_path, monkeypatch):
  """A folder with a config; its kind is found as if it were the package's."""
  (tmp_path / 'kinds').mkdir()
  (tmp_path / 'kinds' / 'lines.py').write_text(LINES)
  (tmp_path / 'config.py').write_text(CONFIG)
  (tmp_path / 'my_agent.py').write_text(faulty_agent.AGENT)
  monkeypatch.setattr(kinds, '__path__',
                      [*kinds.__path__, str(tmp_path / 'kinds')])
  yield tmp_path
  sys.modules.pop(f'{kinds.__name__}.lines', None)


def test_a_kind_that_is_one_file_is_found_and_swept(folder):
  assert 'lines' in kinds.kind_names()
  modules = (str(folder / 'my_agent.py'),)
  units = sweeps.expand(sweeps.load_config(folder / 'config.py'), modules)
  assert [(u.agent, u.family.name, u.num_problems) for u in units] == [
      ('ensemble', 'lines', 4), ('my_agent', 'lines', 4)]
  store = results.open_store(folder / 'store', create=True)
  options = unit_results.RunOptions(str(folder / 'store'),
                                    agent_modules=modules)
  one_unit.check_units(units, options)
  store.write_manifest([entry for unit in units
                        for entry in unit.manifest_entries()])
  outcomes = list(workers.run(units, options, 1))
  assert [outcome.num_ok for outcome in outcomes] == [4, 4], outcomes
  rows = store.read_rows()
  assert {row['problem_id'] for row in rows} == {
      'line1_s0', 'line1_s1', 'line2_s0', 'line2_s1'}
  expected = {(row['agent_id'], results.problem_of(row))
              for row in store.read_manifests()}
  assert expected == {(row['agent_id'], results.problem_of(row))
                      for row in rows} and len(rows) == 8
  x = np.linspace(-1., 1., 5)
  for row in rows:
    results.check_row(row)
    assert row['problem']['kind'] == 'lines'
    if row['agent'] == 'my_agent':  # Members 0, 1, 2 and 3: a mean of 1.5.
      slope = row['problem']['cell']['slope']
      assert row['scores']['mean_rmse'] == pytest.approx(
          np.sqrt(np.mean((1.5 - slope * x - 9.)**2)))
  # All is done: nothing is left of any unit.
  done = results.done_row_ids(store)
  assert not [part for unit in units for part in sweeps.narrow(unit, done)]


def test_a_kind_has_config_names_of_its_own(folder):
  text = (folder / 'config.py').read_text()
  for more, message in (
      ('NOISE_STD = [0.1]', 'unknown name NOISE_STD; allowed are PROBLEMS, '
       'SLOPE, SEED'),
      ('SLOPE = [-1]', 'SLOPE must be a finite number > 0, got -1')):
    (folder / 'config.py').write_text(f'{text}{more}\n')
    with pytest.raises(ValueError, match=message):
      sweeps.load_config(folder / 'config.py')
  (folder / 'config.py').write_text(f'{text}SLOPE = [60]\n')
  units = sweeps.expand(sweeps.load_config(folder / 'config.py'),
                        (str(folder / 'my_agent.py'),))
  with pytest.raises(ValueError, match='slopes must be at most 50'):
    one_unit.check_units(units, unit_results.RunOptions('nowhere'))
