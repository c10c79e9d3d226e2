"""The benchmark of optimised layer ensembles: what it counts, a tiny run."""

import csv
import dataclasses
import pathlib

import commands
import jax
import numpy as np
import pytest

from enn_ensembles.networks import stack_network
from enn_ensembles.studies.layer_ensembles import ole_benchmark
from enn_ensembles.studies.layer_ensembles import ole_picture
from enn_ensembles.studies.layer_ensembles import timed_turns

ROOT = pathlib.Path(__file__).parents[1]

TINY = ole_benchmark.OleBenchmarkOptions(
    batch_size=2, repeats=3, dtype='float64', channels=(3, 2), hidden=4,
    image_size=9, seconds=1e-4)


def test_the_cnn_has_four_layers_with_options():
  options = ole_benchmark.OleBenchmarkOptions()
  stack = ole_benchmark.make_cnn(5, options)
  assert stack.num_options == (5, 5, 5, 5) and stack.num_samples == 625
  assert stack.shapes(options.input_shape) == [
      (28, 28, 1), (28, 28, 32), (14, 14, 32), (14, 14, 64), (7, 7, 64),
      (3136,), (128,), (10,)]


def test_flops_of_the_layers():
  options = ole_benchmark.OleBenchmarkOptions()
  stack = ole_benchmark.make_cnn(3, options)
  # Windows of 5 by 5 and a bias at every place of the image.
  assert ole_benchmark.layer_flops(stack, options.input_shape) == [
      2 * 28 * 28 * 32 * (25 + 1), 2 * 14 * 14 * 64 * (25 * 32 + 1),
      2 * 128 * (7 * 7 * 64 + 1), 2 * 10 * (128 + 1)]


@pytest.fixture(scope='module')
def row():
  return ole_benchmark.measure(2, TINY)


def test_all_ways_compute_the_same(row):
  assert row['max_difference'] < 1e-12
  assert row['num_samples'] == 16 and row['num_half'] == 8


def test_a_wrong_way_is_found():
  stack = ole_benchmark.make_cnn(2, TINY)
  x = np.random.default_rng(0).normal(size=(2, 9, 9, 1))
  params, _ = stack_network.make_network(stack, None).init(
    jax.random.PRNGKey(0), x, None
  )
  ways = ole_benchmark.compile_ways(stack, stack_network.get_weights(params), x)
  chosen = np.random.default_rng([0, 0]).choice(16, 8, replace=False)
  assert ole_benchmark._difference(ways, chosen) < 1e-12
  # Samples in another order than that of the outputs.
  assert ole_benchmark._difference(ways, np.sort(chosen)[::-1]) > 0.01


def test_a_row_has_what_it_says(row):
  flops = ole_benchmark.layer_flops(ole_benchmark.make_cnn(2, TINY), (9, 9, 1))
  assert row['flops_one_by_one'] == 2 * 16 * sum(flops)
  assert row['flops_ole'] == 2 * (2 * flops[0] + 4 * flops[1] + 8 * flops[2]
                                  + 16 * flops[3])
  for name in ole_benchmark.TIMED:
    low, middle, high = (row[f'seconds_{name}{end}']
                         for end in ('_low', '', '_high'))
    assert 0 < low <= middle <= high
  for name in ole_benchmark.TIMED[1:]:
    share = 0.5 if name == 'half' else 1.
    # Ratios within turns lie between the ratios of the extremes.
    assert (share * row['seconds_one_by_one_low'] / row[f'seconds_{name}_high']
            <= row[f'speedup_{name}_low'] <= row[f'speedup_{name}']
            <= row[f'speedup_{name}_high'] <= share
            * row['seconds_one_by_one_high'] / row[f'seconds_{name}_low'])
  low, middle, high = (row[f'speedup_ole_over_one_program{end}']
                       for end in ('_low', '', '_high'))
  assert 0 < low <= middle <= high
  outputs = {'one_by_one': 2 * 10, 'mapped': 16 * 20, 'ole': 16 * 20,
             'half': 8 * 20, 'one_program': 16 * 20}
  for name, size in outputs.items():
    assert row[f'memory_{name}_bytes'] - row[f'temp_{name}_bytes'] == 8 * size
  # Nothing shared: the first convolution of each of 16 samples, 9 x 9 x 3.
  assert row['temp_one_program_bytes'] > 16 * 2 * 9 * 9 * 3 * 8
  assert row['temp_one_program_bytes'] > 2 * row['temp_ole_bytes']


def test_speedup_is_a_ratio_within_a_turn(monkeypatch):
  # Turns of different speed: each way's seconds are scripted.
  tiny = dataclasses.replace(TINY, one_program_mib=1e-9)
  script = {'one_by_one': [8., 30., 50.], 'mapped': [8., 10., 50.],
            'ole': [2., 3., 10.], 'half': [4., 5., 5.], 'moments': [1., 1., 1.]}
  calls = iter([name for _ in range(3) for name in ole_benchmark.TIMED])
  monkeypatch.setattr(timed_turns, 'seconds_per_call',
                      lambda run, seconds: script[next(calls)][run.args[0]])
  row = ole_benchmark.measure(1, tiny)
  assert row['seconds_ole'] == 3.
  assert [row[f'speedup_ole{end}'] for end in ('_low', '', '_high')] == [
      4., 5., 10.]  # 8/2, 30/3, 50/10.
  assert row['speedup_mapped_high'] == 3.
  assert row['speedup_ole_over_one_program'] is None  # It would not fit.
  # With one option, half of the one sample is that sample.
  assert row['num_half'] == 1 and row['speedup_half_low'] == 2.


def test_picture(row):
  rows = [dict(row, num_options=k) for k in (3, 2)]
  picture = ole_picture.make_picture(rows)
  assert picture.startswith(b'\x89PNG') and len(picture) > 10_000
  assert picture == ole_picture.make_picture(rows)


def test_bad_input_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  output = f'--output_dir={tmp_path}/out'
  cases = [
      (['--num_options=', output], '--num_options must be a list of at'),
      (['--num_options=2,x', output], "--num_options must be integers with "
       "commas between, got '2,x'"),
      (['--num_options=2,0', output], 'num_options must be an integer >= 1, '
       'got 0'),
      (['--batch_size=0', output], 'batch_size must be an integer >= 1'),
      (['--repeats=0', output], 'repeats must be an integer >= 1'),
      (['--dtype=bfloat16', output], "dtype must be one of 'float32', "),
      (['--channels=3', output], 'channels must have 2 entries'),
      (['--channels=3,-1', output], 'channels must be an integer >= 1'),
      (['--hidden=0', output], 'hidden must be an integer >= 1'),
      (['--seconds=0', output], 'seconds must be a finite number > 0'),
      ([f'--output_dir={tmp_path}/file/out'], 'output_dir'),
      ([output, 'extra'], "unknown argument 'extra'")]
  commands.check_refused('figure3', cases)
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_command(tmp_path):
  done = commands.run_module(
      'experiments.figure3', '--num_options=1,2', '--batch_size=1',
      '--repeats=1', '--channels=2,3', '--hidden=4', '--seconds=0.001',
      f'--output_dir={tmp_path}/made')
  assert not done.returncode, done.stderr
  lines = done.stdout.splitlines()
  assert len(lines) == 3
  assert lines[0].startswith('K = 1, 1 samples:')
  assert lines[1].startswith('K = 2, 16 samples:')
  with open(tmp_path / 'made' / 'figure3.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['num_options'] for row in rows] == ['1', '2']
  for row in rows:
    assert all(value != '' for value in row.values())
    assert row['batch_size'] == '1' and row['dtype'] == 'float32'
    assert float(row['max_difference']) < 1e-4
    for name in ('speedup_ole', 'speedup_moments', 'memory_ole_bytes',
                 'memory_one_program_bytes', 'num_samples'):
      assert float(row[name]) > 0
  assert (tmp_path / 'made' / 'figure3.png').read_bytes().startswith(
      b'\x89PNG')
