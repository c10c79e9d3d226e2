"""How far a sweep is: counts, times, errors, and who is at work."""

import dataclasses
import json
import os
import pathlib
import subprocess
import time

import commands
import example_rows
import pytest

from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import files
from enn_ensembles.machine import heartbeats
from enn_ensembles.sweeps import status_text
from enn_ensembles.sweeps import sweep_status

ROOT = pathlib.Path(__file__).parents[1]

CONFIG = '''
INPUT_DIM = [3, 4]
DATA_RATIO = [2]
NOISE_STD = [0.1, 1.0]
SEED = [0, 1, 2]
AGENTS = [{'agent': 'map'}, {'agent': 'ensemble', 'num_ensemble': 3,
                             'selection': ['none', 'oracle']}]
'''


@pytest.fixture(name='units')
def make_units(tmp_path):
  (tmp_path / 'config.py').write_text(CONFIG)
  return sweeps.expand(sweeps.load_config(tmp_path / 'config.py'))


def make_rows(unit, keep=lambda row: True, **fields):
  """Rows of a unit, as a run would write them but for the scores."""
  rows = []
  for cell in unit.family.cells:
    for seed in unit.seeds:
      for selection in unit.selections:
        rows.append(example_rows.make_row(**{
            **unit.row_fields(cell, seed, selection), 'run_id': unit.run_id,
            **fields}))
  return [row for row in rows if keep(row)]


def is_first_seed(row):
  return row['problem']['seed'] == 0


def is_noisy(row):
  return row['problem']['cell']['noise_std'] == 1.


def test_counts_by_agent_and_family(units):
  map3, map4, ensemble3, ensemble4 = units
  rows = [*make_rows(map3),
          *make_rows(map4, is_first_seed, kl=None),
          *make_rows(ensemble3, is_noisy,
                     status='diverged', message='not finite: kl_estimate')]
  running = ensemble3.row_ids()  # Six of which are done.
  status = sweep_status.make_status(units, rows, running)
  counts = lambda c: (c.expected, c.ok, c.diverged, c.failed, c.running,
                      c.missing)
  assert {group: counts(c) for group, c in status.groups.items()} == {
      ('map', 'D3_l2_bayes'): (6, 6, 0, 0, 0, 0),
      ('map', 'D4_l2_bayes'): (6, 0, 0, 2, 0, 4),
      ('ensemble,num_ensemble=3', 'D3_l2_bayes'): (12, 0, 6, 0, 6, 0),
      ('ensemble,num_ensemble=3', 'D4_l2_bayes'): (12, 0, 0, 0, 0, 12)}
  assert counts(status.by_agent()['map']) == (12, 6, 0, 2, 0, 4)
  assert counts(status.by_family()['D3_l2_bayes']) == (18, 6, 6, 0, 6, 0)
  assert counts(status.total) == (36, 6, 6, 2, 6, 16)
  assert status.total.done == 12
  # Rows of another sweep are none of this one.
  other = dataclasses.replace(map3, seeds=(7, 8))
  assert sweep_status.make_status(units, rows + make_rows(other),
                                  running) == status


def test_time_left_is_what_was_measured(units):
  _, _, unit, _ = units
  # A problem takes 2 + 3 + 5 s and two rankings of 7 s; a start 11 s.
  rows = make_rows(unit, is_first_seed, problem_seconds=2.,
                   train_seconds=3., evaluate_seconds=5., rank_seconds=3.5,
                   compile_seconds=11.)
  status = sweep_status.make_status([unit], rows)
  assert status.num_measured == 1
  assert status.total.seconds_left == pytest.approx(11 + 4 * 17)
  # All done: nothing is left. Nothing done: the estimate.
  assert not sweep_status.make_status(
      [unit], make_rows(unit)).total.seconds_left
  status = sweep_status.make_status([unit], [])
  assert status.num_measured == 0
  assert status.total.seconds_left == pytest.approx(
      sweeps.estimate_seconds(unit))


def test_what_is_not_measured_is_scaled(units):
  map3, map4, ensemble3, _ = units
  # Twice what was estimated.
  whole = 2 * sweeps.estimate_seconds(map3)
  rows = make_rows(map3, problem_seconds=0., train_seconds=whole / 6,
                   evaluate_seconds=0., compile_seconds=0.)
  left = {group: counts.seconds_left for group, counts in
          sweep_status.make_status([map3, map4, ensemble3],
                                   rows).groups.items()}
  assert left['map', 'D3_l2_bayes'] == 0
  for unit in (map4, ensemble3):  # Its own agent's, then anybody's.
    assert left[unit.agent_label, unit.family.name] == pytest.approx(
        2 * sweeps.estimate_seconds(unit))
  # A failed row was not measured.
  rows = make_rows(map3, kl=None, train_seconds=None, evaluate_seconds=None)
  assert sweep_status.make_status(units, rows).num_measured == 0


def test_what_a_running_unit_says_of_itself_counts(units):
  unit = units[2]
  rows = make_rows(unit, is_first_seed, train_seconds=1.)
  left, = sweeps.narrow(unit, {row['row_id'] for row in rows})
  five_hours = {left.row_ids()[0]: 18000.}
  status = sweep_status.make_status([unit], rows, left.row_ids(), five_hours)
  assert status.total.seconds_left == 18000.
  # Where only a part of what is left runs, the rest comes on top, at least.
  half = left.row_ids()[:1]
  status = sweep_status.make_status([unit], rows, half, five_hours)
  assert status.total.seconds_left >= 18000.


def test_of_user_defined_agents_nothing_is_promised(units):
  own = dataclasses.replace(units[0], agent='own_agent')
  status = sweep_status.make_status([own, units[1]], [])
  assert status.num_unknown == 1
  assert 'nobody knows yet how long' in status_text.format_text(status, 0)
  status = sweep_status.make_status([own], [], own.row_ids(),
                                    {own.row_ids()[0]: 60.})
  assert not status.num_unknown
  measured = make_rows(own, is_first_seed, train_seconds=1.)
  assert not sweep_status.make_status([own], measured).num_unknown


def test_errors_are_counted(units):
  map3, map4, ensemble3, _ = units
  rows = [*make_rows(map3, kl=None, message='OSError: a'),
          *make_rows(map4, is_first_seed, kl=None,
                     message='OSError: b'),
          *make_rows(ensemble3, kl=None, message='OSError: a')]
  assert sweep_status.make_status(units, rows).errors == [
      ('failed', 'OSError: a', 18, ('ensemble,num_ensemble=3', 'map')),
      ('failed', 'OSError: b', 2, ('map',))]
  text = status_text.format_text(sweep_status.make_status(units, rows), 0)
  assert '  18 failed (ensemble,num_ensemble=3, map): OSError: a\n' in text
  assert text.index('OSError: a') < text.index('OSError: b')
  assert '20 failed (--retry_failed runs them again)' in text
  assert 'Nobody is at work on it.' in text


def test_text(units):
  status = sweep_status.make_status(units, make_rows(units[0]),
                                    units[1].row_ids())
  lines = status_text.format_text(status, 4, 1).splitlines()
  assert lines[0].split() == ['agent', 'done', 'diverged', 'running', 'failed',
                              'missing', 'of', 'time', 'left']
  assert lines[1].split()[:7] == ['map', '6', '-', '6', '-', '-', '12']
  assert lines[3].split()[:7] == ['total', '6', '-', '6', '-', '24', '36']
  # Columns stand below each other.
  assert len({len(line) for line in lines[:4]}) == 1
  text = '\n'.join(lines)
  assert '6 of 36 rows are done.' in text
  assert 'measured for 1 of 4 agent settings on families' in text
  assert '4 processes are at work: about' in text
  assert '1 processes ended without saying so' in text


@pytest.mark.parametrize('seconds, text', [
    (0.4, '0 s'), (89, '89 s'), (90, '1.5 min'), (3600, '60.0 min'),
    (7200, '2.0 h'), (86400 * 3, '3.0 days')])
def test_durations(seconds, text):
  assert status_text.duration_text(seconds) == text


# Heartbeats.


def test_a_heartbeat_comes_and_goes(tmp_path, units, monkeypatch):
  monkeypatch.setattr(heartbeats, '_SETTLE_SECONDS', 0.)
  monkeypatch.setenv('SLURM_ARRAY_TASK_ID', '3')
  assert not heartbeats.read(tmp_path)
  with heartbeats.Heartbeat(tmp_path, '3 of 20', 2) as heartbeat:
    worker, = heartbeats.read(tmp_path)
    assert worker.alive and worker.pid == os.getpid() and not worker.entries
    assert (worker.task, worker.num_workers) == ('3 of 20', 2)
    assert worker.job['SLURM_ARRAY_TASK_ID'] == '3'
    assert 0 <= worker.age_seconds < 3600
    heartbeat.set_entries([{'row_ids': units[0].row_ids()}])
    deadline = time.monotonic() + 600
    while not heartbeats.read(tmp_path)[0].entries:
      assert time.monotonic() < deadline
      time.sleep(0.01)
    entry, = heartbeats.read(tmp_path)[0].entries
    # Through JSON and back: the same rows.
    assert entry['row_ids'] == units[0].row_ids()
  assert not list((tmp_path / 'running').iterdir())


def test_a_short_unit_leaves_no_trace(tmp_path, monkeypatch):
  monkeypatch.setattr(heartbeats, '_SETTLE_SECONDS', 3600.)
  with heartbeats.Heartbeat(tmp_path, '', 1) as heartbeat:
    writes, write = [], heartbeat._write
    heartbeat._write = lambda: (writes.append(1), write())
    for i in range(1000):
      heartbeat.set_entries([{'unit': i}])
    time.sleep(0.1)
    assert len(writes) == 0
  assert len(writes) <= 1


def write_heartbeat(folder, **fields):
  """A file as a process elsewhere, or long ago, would have left it."""
  with heartbeats.Heartbeat(folder, '0 of 1', 1) as heartbeat:
    text = heartbeat._path.read_text()
  path = folder / 'running' / 'another.json'
  path.write_text(json.dumps({**json.loads(text), **fields}))
  return path


@pytest.mark.skipif(not heartbeats._place(), reason='this needs /proc')
def test_dead_processes_are_told_from_live_ones(tmp_path):
  ended = subprocess.Popen(['true'])
  ended.wait()
  alive = lambda: heartbeats.read(tmp_path)[0].alive
  write_heartbeat(tmp_path)
  assert alive()
  # Here: no such process, or its number was used again.
  write_heartbeat(tmp_path, pid=ended.pid)
  assert not alive()
  write_heartbeat(tmp_path, pid_start='1')
  assert not alive()
  # On another machine, where only its age tells.
  path = write_heartbeat(tmp_path, place='elsewhere', pid=ended.pid)
  assert alive()
  for hours, expected in ((-1, False), (1, True)):  # A clock ran backwards.
    moved = time.time() + hours * 3600
    os.utime(path, (moved, moved))
    assert alive() == expected
    assert heartbeats.read(tmp_path)[0].age_seconds >= 0
  # What is being replaced at this moment, or is of another version.
  path.write_text('{"host": ')
  assert not heartbeats.read(tmp_path)
  path.write_text('{"host": "a"}')
  assert not heartbeats.read(tmp_path)


def test_a_folder_that_refuses_costs_the_heartbeat_only(tmp_path):
  (tmp_path / 'running').write_text('a file')
  with heartbeats.Heartbeat(tmp_path, '0 of 1', 1) as heartbeat:
    heartbeat.set_entries([])
  # Who asks is told: a folder that cannot be listed is not an empty one.
  with pytest.raises(files.FileError, match='running: Not a directory'):
    heartbeats.read(tmp_path)


# The command.


def run_status(tmp_path, *arguments):
  return commands.run_module(
      'experiments.status', f'--config={tmp_path / "config.py"}', *arguments)


def test_the_command(tmp_path, units):
  first = results.open_store(tmp_path / 'first', create=True)
  second = results.open_store(tmp_path / 'second', create=True)
  first.write_unit(units[0].run_id, make_rows(units[0]))
  second.write_unit(units[1].run_id, make_rows(
      units[1], kl=None, message='OSError: no such thing'))
  folders = f'--results_dir={tmp_path / "first"},{tmp_path / "second"}'
  with heartbeats.Heartbeat(tmp_path / 'second', '0 of 1', 3) as heartbeat:
    heartbeat.set_entries([{'row_ids': units[2].row_ids()},
                           {'from': 'elsewhere'}])
    heartbeat._write()
    code, out, err = run_status(tmp_path, folders,
                                f'--csv={tmp_path / "s.csv"}')
  assert code == 3 and not err
  assert '3 processes are at work' in out
  assert '6 failed (map): OSError: no such thing' in out
  assert f'pid {os.getpid()}: task 0 of 1, 2 units running' in out
  lines = (tmp_path / 's.csv').read_text().splitlines()
  assert lines[0] == ('agent_label,problems,expected,ok,diverged,failed,'
                      'running,missing,seconds_left')
  assert lines[1] == 'map,D3_l2_bayes,6,6,0,0,0,0,0.0'
  assert lines[2] == 'map,D4_l2_bayes,6,0,0,6,0,0,0.0'
  assert lines[3].startswith(
      '"ensemble,num_ensemble=3",D3_l2_bayes,12,0,0,0,12,0,')

  # Narrowed to what is there: nothing is missing, some of it failed.
  code, out, _ = run_status(tmp_path, folders, '--agents=map')
  assert code == 1 and '6 of 12 rows are done' in out
  code, out, _ = run_status(tmp_path, folders, '--agents=map', '--input_dim=3')
  assert code == 0 and '6 of 6 rows are done.' in out
  code, _, err = run_status(tmp_path, f'--results_dir={tmp_path / "third"}')
  assert code == 2 and err.count('\n') == 1 and 'does not exist' in err
