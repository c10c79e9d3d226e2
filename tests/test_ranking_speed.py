"""The command ranking_speed."""

import csv

import commands


def test_measures_and_refuses(tmp_path):
  output = tmp_path / 'ranking_speed.csv'
  good, no_number, zero = commands.run_commands(
      'ranking_speed',
      ['--num_samples=3,9', '--num_x=20', '--repeats=2',
       f'--output_dir={tmp_path}'],
      ['--num_samples=a'], ['--num_samples=0'])
  assert good[0] == 0, good
  rows = list(csv.DictReader(output.open()))
  assert [(row['num_samples'], row['dtype']) for row in rows] == [
      ('3', 'float64'), ('3', 'float32'), ('9', 'float64'), ('9', 'float32')]
  for row in rows:
    assert 0 < float(row['seconds_min']) <= float(row['seconds_median'])
    # The plain order was computed, and is the same.
    assert bool(row['plain_seconds']) == (row['dtype'] == 'float64')
  for answer, message in ((no_number, "must be integers .* 'a'"),
                          (zero, '--num_samples must be an integer >= 1')):
    assert answer[0] == 2 and answer[2].count('\n') == 1
    assert message.split(' .* ')[0] in answer[2]
