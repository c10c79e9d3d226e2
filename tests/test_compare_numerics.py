"""Two folders of one sweep side by side."""

import commands
import example_rows
import pytest

from enn_ensembles import results


def write_rows(folder, kls, **fields):
  store = results.open_store(folder, create=True)
  for seed, kl in enumerate(kls):
    row = example_rows.make_row(kl, seed=seed, **fields)
    store.write_unit(f'unit-{seed}', [{**row, 'run_id': f'unit-{seed}'}])
  return folder


@pytest.fixture(name='folders')
def _folders(tmp_path):
  here = write_rows(tmp_path / 'here', [0.5, 0.25, None, 0.7],
                    weight_cosine=0.002)
  there = write_rows(tmp_path / 'there', [0.505, 0.2501, 0.3],
                     weight_cosine=-0.001, numerics={'instruction_set': 'sse'})
  wrong = write_rows(tmp_path / 'wrong', [0.5, 0.275], weight_cosine=0.002,
                     numerics={'instruction_set': 'sse'})
  return here, there, wrong


def test_the_table_and_the_contradictions(folders, tmp_path):
  here, there, wrong = folders
  agreeing, contradicting, refused, single = commands.run_commands(
      'compare_numerics', [f'--results_dir={here},{there}'],
      [f'--results_dir={here},{wrong}'],
      [f'--results_dir={here},{write_rows(tmp_path / "none", [None])}'],
      [f'--results_dir={here}'])
  assert agreeing.returncode == 0, agreeing.stderr
  lines = {line.split(' | ')[0].strip('| '): line
           for line in agreeing.stdout.splitlines()}
  # A failed row has no scores. 0.505 is the larger one of its pair.
  assert lines['2 rows are in both folders.']
  assert lines['cosines of weights'].split(' | ')[1:] == [
      '2', '-', '0.00300 (weight_cosine, ensemble of 10 samples on '
      'D10_l1_e0.1_s0_bayes)', '0.005 |']
  assert '0.00990 (kl_estimate' in lines['other scores of regression']
  assert '0 of 2 rows contradict' in agreeing.stdout
  assert contradicting.returncode == 1
  assert contradicting.stdout.splitlines()[-2:] == [
      '1 of 2 rows contradict their copy.',
      'ensemble-K10 on D10_l1_e0.1_s1_bayes, selection none: kl_estimate 0.25 '
      'and 0.275']
  assert (refused.returncode, single.returncode) == (2, 2)
  assert 'share none' in refused.stderr
  assert 'must be two folders, got 1' in single.stderr
