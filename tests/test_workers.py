"""Runs of many units: in this process, and in workers."""

import os

import counting
from faulty_agent import make_folder  # noqa: F401
from faulty_agent import make_options
from faulty_agent import make_units
from faulty_agent import read_rows
from faulty_agent import scores_of
import numpy as np
import pytest
from tiny_sweeps import make_training_unit
from tiny_sweeps import make_unit

from enn_ensembles import results
from enn_ensembles.machine import core_claims
from enn_ensembles.machine import devices
from enn_ensembles.machine import file_locks
from enn_ensembles.problems import kinds
from enn_ensembles.sweeps import claimed_units
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import workers


def test_workers_write_the_rows_of_one_process(folder):
  units = [*make_units(folder, data_ratio=(1., 2.)),
           *make_units(folder, 'exact_posterior', seed=(0, 1)),
           *make_units(folder, what='raises'),
           *make_units(folder, what='killed'),
           *make_units(folder, what='exits'), *make_units(folder, what='nan')]
  assert devices.available_cores()
  outcomes = {outcome.unit.agent_config.get('what', 'exact'): outcome
              for outcome in workers.run(units, make_options(folder), 2)}
  # Whoever is killed takes nobody along.
  assert {what: outcome[1:5] for what, outcome in outcomes.items()} == {
      'zero': (2, 0, 0, 0), 'exact': (4, 0, 0, 0), 'raises': (1, 0, 1, 0),
      'killed': (0, 0, 0, 2), 'exits': (0, 0, 0, 2), 'nan': (0, 2, 0, 0)}
  assert 'SIGKILL' in outcomes['killed'].message
  assert 'exit code 3' in outcomes['exits'].message
  assert {what for what, outcome in outcomes.items()
          if not outcome.succeeded} == {'raises', 'killed', 'exits'}
  assert 'ArithmeticError' in outcomes['raises'].details
  rows = read_rows(folder)
  assert len(rows) == 2 * 2 + 4 + 2 + 2

  alone = []
  for unit in units:
    if unit.agent_config.get('what') not in ('killed', 'exits'):
      alone += one_unit.run_unit(unit, make_options(folder))[0]
  ours, theirs = scores_of(alone), scores_of(rows)
  assert ours.keys() == theirs.keys()
  for row_id, scores in ours.items():
    assert (scores is None) == (theirs[row_id] is None)
    if scores is not None:
      np.testing.assert_allclose(theirs[row_id], scores, rtol=1e-9, atol=1e-12)


@pytest.fixture(name='no_other_sweeps')
def _no_other_sweeps(tmp_path, monkeypatch):
  """Claims of cores by other sweeps of this machine do not count."""
  monkeypatch.setattr(file_locks.tempfile, 'gettempdir', lambda: tmp_path)


@pytest.mark.skipif(
    not hasattr(os, 'sched_getaffinity') or len(os.sched_getaffinity(0)) < 2,
    reason='this needs processor affinity and two cores')
def test_workers_have_their_own_cores(folder, no_other_sweeps):
  told = folder / 'told'
  told.mkdir()
  units = make_units(folder, what='tells', where=str(told),
                     data_ratio=(1., 2., 3., 4.), noise_std=(0.1,))
  before = os.sched_getaffinity(0)
  environment = dict(os.environ)
  assert all(o.succeeded for o in workers.run(units, make_options(folder), 2))
  assert os.sched_getaffinity(0) == before and os.environ == environment
  cores, half = sorted(before), len(before) // 2
  said = [path.read_text() for path in told.iterdir()]
  assert len(said) == 4
  assert set(said) == {f'{[core]} 1' for core in (cores[0], cores[half])}


@pytest.mark.skipif(not hasattr(os, 'sched_getaffinity'),
                    reason='this needs processor affinity')
def test_a_single_worker_is_pinned_too(folder, no_other_sweeps):
  told = folder / 'told'
  told.mkdir()
  units = make_units(folder, what='tells', where=str(told), noise_std=(0.1,))
  cores = sorted(os.sched_getaffinity(0))

  def run():
    outcome, = workers.run(units, make_options(folder), 1,
                           in_this_process=False)
    assert outcome.succeeded
    said, = told.iterdir()
    text = said.read_text()
    said.unlink()
    return text

  with core_claims.claim_core(cores) as other:  # As another sweep has it.
    free = [core for core in cores if core != other]
    assert run() == f'{(free or cores)[:1]} 1'
  assert run() == f'{cores[:1]} 1'


@pytest.mark.parametrize('num_workers', [1, 2])
def test_running_units_are_announced(folder, num_workers):
  units = make_units(folder, data_ratio=(1., 2., 3.), noise_std=(0.1,))
  told = []
  list(workers.run(units, make_options(folder), num_workers, told.append))
  assert max(map(len, told)) == num_workers and told[-1] == []
  assert {running.unit.run_id for found in told for running in found} == {
      unit.run_id for unit in units}
  # What a worker says of its stage reaches the parent.
  texts = {running.stage.text for found in told for running in found
           if running.stage is not None}
  assert any('training' in text for text in texts), texts


def test_a_worker_s_mistakes_reach_the_parent(folder):
  options = make_options(folder, problem_settings=kinds.ProblemSettings(
      cache_dir=str(folder / 'my_agent.py')))
  units = make_units(folder, data_ratio=(1., 2.))
  with pytest.raises(ValueError, match='cache_dir .* is not a folder'):
    list(workers.run(units, options, 2))


def test_a_trivial_unit_costs_little(folder):
  units = make_units(folder, noise_std=(0.1,),
                     where=[f'unit{i}' for i in range(60)])
  options = make_options(folder, problem_settings=kinds.ProblemSettings(
      cache_dir=str(folder / 'cache')))
  def run(some):
    assert all(o.succeeded for o in workers.run(some, options, 1))

  run(units[:10])  # What happens once has happened.
  few = counting.num_calls(lambda: run(units[10:20]))
  many = counting.num_calls(lambda: run(units[20:]))
  # Of 10 and of 40 units: those that are written already cost nothing. Of
  # 60,000 calls Python does a unit's in about 0.02 seconds.
  assert many < 4.05 * few and few / 10 < 60_000


def test_what_waits_is_taken_from_both_ends():
  longest, middle, shortest, other = jobs = [
      claimed_units.Job(make_unit(seeds=(i,)), None) for i in range(4)]
  waiting = workers._Waiting(jobs)
  assert waiting.take(shortest=True) is other
  waiting.put_off(other)
  # What others compute comes last, for whoever takes the shortest too.
  assert waiting.take(shortest=True) is shortest
  assert waiting.take(shortest=False) is longest
  waiting.put_off(longest)
  assert waiting.take(shortest=False) is middle
  assert waiting.take(shortest=False) == other._replace(wait=True)
  assert waiting
  assert waiting.take(shortest=True) == longest._replace(wait=True)
  assert not waiting


def test_taking_a_job_costs_the_same_of_many():
  def take_ten(num):
    waiting = workers._Waiting([claimed_units.Job(make_unit(seeds=(i,)), None)
                                for i in range(num)])
    return counting.num_calls(lambda: [waiting.take(shortest=i % 2 == 0)
                                       for i in range(10)])

  assert take_ten(20) == take_ten(2000)


def test_there_is_at_least_one_worker(folder):
  with pytest.raises(ValueError, match='num_workers must be >= 1, got 0'):
    next(workers.run(make_units(folder), make_options(folder), 0))


def test_a_unit_that_is_claimed_is_put_off_and_not_computed_again(
    tmp_path, monkeypatch):
  results.open_store(tmp_path, create=True)
  options = unit_results.RunOptions(str(tmp_path))
  unit = make_training_unit(num_batches=3)
  job, = claimed_units.make_jobs([unit], options)
  (tmp_path / 'claims').mkdir()
  with file_locks.claim(tmp_path / 'claims' / f'{unit.run_id}.lock'):
    assert claimed_units.run_claimed(job, options) is None
  first = claimed_units.run_claimed(job, options)
  assert first.num_ok == unit.num_rows == 6
  monkeypatch.setattr(claimed_units, '_run_and_write',
                      lambda *_: 'computed again')
  # The other process wrote it after this one had looked.
  second = claimed_units.run_claimed(job._replace(wait=True), options)
  assert second.num_ok == 6 and second.unit == unit
  # One that was there from the start is computed, since somebody asked for it.
  job, = claimed_units.make_jobs([unit], options)
  assert claimed_units.run_claimed(job, options) == 'computed again'
