"""The quickstart on digits: a board of small images, all in this process."""

import os
import re
import signal
import threading
import time

import commands
import pytest
import tiny_sweeps

from enn_ensembles import agents as agents_lib
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.report import html_page
from enn_ensembles.report import text
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results

quickstart = commands.load_command('quickstart')

TINY = {
    'PROBLEMS': 'images', 'DATASET': ['digits'], 'NUM_TRAIN': [40],
    'NUM_TEST': 30, 'SHIFTS': ['rotation:1'], 'HELD_OUT': [8, 9],
    'OOD': ['held_out'], 'SEED': [0],
    # No field of the other kind of problems.
    'INPUT_DIM': None, 'DATA_RATIO': None, 'NOISE_STD': None,
    'AGENTS': [
        {'agent': name, 'hidden_sizes': (4,), 'num_batches': 2, **settings}
        for name, settings in (('map', {}), ('ensemble', {'num_ensemble': 2}))]}


def test_board_of_digits(tmp_path):
  config = tiny_sweeps.make_config(tmp_path, **TINY)
  store = results.open_store(tmp_path / 'results', create=True)
  options = unit_results.RunOptions(str(tmp_path / 'results'))
  rows = []
  for unit in sweeps.expand(config):
    found, details = one_unit.run_unit(unit, options)
    assert not details
    store.write_unit(unit.run_id, found)
    rows += found
  kept = [row['counts'] for row in rows if row['agent'] == 'ensemble'][0]
  assert set(kept) == {'test', 'shift', 'held_out'}
  assert sum(kept['test']['bin_count']) == 30 == sum(kept['shift']['mi_count'])
  cosine = kept['test']['weight_cosine']
  scores = [row['scores'] for row in rows if row['agent'] == 'ensemble'][0]
  assert cosine[0][1] == pytest.approx(scores['weight_cosine'], abs=1e-6)
  assert cosine[0][0] == pytest.approx(1.)

  tables, paths = html_page.build(tmp_path / 'results', tmp_path / 'output')
  assert paths['leaderboard.html'].is_file()
  board = text.format_table(tables).splitlines()
  assert 'mean NLL' in board[1]
  for label in ('accuracy', 'ECE', 'NLL under shift', 'OOD AUROC by MSP'):
    assert label in board[1]
  # One network has no diversity to tell other images by.
  line, = [line for line in board if re.search(' map[ ,]', line)]
  assert text.short_number(rows[0]['scores']['accuracy']) in line


def test_a_config_may_leave_images_as_they_are(tmp_path):
  options = unit_results.RunOptions(str(tmp_path))
  found = {}
  for normalise in (None, True, False):
    unit = sweeps.expand(tiny_sweeps.make_config(
        tmp_path, **TINY, NORMALISE=normalise))[0]
    problem, = unit.family.make(0, options.problem_settings)
    found[normalise] = unit
    assert (problem.data.x.min() < 0) == (normalise is not False)
  # What a config writes out has the names of the default.
  assert found[True].run_id == found[None].run_id != found[False].run_id
  assert found[True].family.facts() == found[None].family.facts()
  assert found[False].family.facts()['normalise'] is False
  with pytest.raises(ValueError, match='NORMALISE must be True or False, got'):
    tiny_sweeps.make_config(tmp_path, **TINY, NORMALISE='no')


def test_its_config_has_every_method_that_classifies():
  config = sweeps.load_config('quickstart_digits')
  assert config.problem['dataset'] == ('digits',)
  # These know a kernel, or say what the noise of numbers is.
  assert {unit.agent for unit in sweeps.expand(config)} == set(
      agents_lib.agent_names()) - {'exact_posterior', 'prior_only',
                                   'random_features', 'mean_variance_ensemble'}


@pytest.mark.parametrize('kind', ['nngp', 'digits', None])
def test_what_it_says_at_its_end(kind):
  ending = quickstart.make_ending(kind, 'file:///page', 'CONFIG', 'R', 'O')
  assert 'file:///page' in ending and '--results_dir=R' in ending
  assert ('AUROC' in ending) == (kind == 'digits')
  # Of numbers of somebody's own sweep it knows nothing.
  assert ('the numbers mean' in ending) == (kind is not None)
  assert ending.isascii()  # Terminals of clusters know no more.


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
def test_signals_reach_the_command_that_computes(tmp_path, monkeypatch, name):
  """Told alone, as by `kill`, the quickstart left its sweep running."""
  program = tmp_path / 'program.sh'
  program.write_text(
      "#!/bin/sh\ntrap 'exit 75' TERM INT\n"
      f'touch {tmp_path}/ready\nwhile :; do sleep 0.05; done\n')
  program.chmod(0o700)
  monkeypatch.setattr(quickstart.sys, 'executable', str(program))
  number = getattr(signal, name)
  # A program that is born with SIGINT ignored, as jobs in the background are,
  # cannot trap it.
  given = signal.signal(number, signal.default_int_handler)
  before = signal.getsignal(number)

  def tell():
    while not (tmp_path / 'ready').exists():
      time.sleep(0.01)
    os.kill(os.getpid(), number)

  thread = threading.Thread(target=tell)
  thread.start()
  assert quickstart._run('run') == 75
  thread.join()
  assert signal.getsignal(number) == before
  signal.signal(number, given)
