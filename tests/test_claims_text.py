"""Claims as text join what agrees, and the command writes them."""

import dataclasses

import commands
import pandas as pd
from planted_claims import figure3
from planted_claims import make_rows
from planted_claims import ONE_BY_ONE
import pytest

from enn_ensembles import results
from enn_ensembles.studies.layer_ensembles import claims
from enn_ensembles.studies.layer_ensembles import claims_text
from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.studies.layer_ensembles import verdicts


def test_markdown_joins_what_agrees_and_splits_what_does_not():
  rows = []
  for reference, ratio in (('bayes', 3.), ('enn2021', 1.3)):
    rows += make_rows(settings.layer_ensemble(2), 0.4, reference)
    rows += make_rows(settings.layer_ensemble(2, prior_scale=0.), 0.4 * ratio,
                      reference)
    rows += make_rows(settings.deep_ensemble(2), 4., reference)
  lines = claims.evaluate(rows)
  text = claims_text.format_markdown(lines)
  table = [[cell.strip() for cell in line.strip('| ').split(' | ')]
           for line in text.splitlines()]
  assert len({len(cells) for cells in table[2:]}) == 1
  same = [cells for cells in table if cells[0] == '1b, K = 2']
  other = [cells for cells in table if cells[0] == '2, K = 2']
  assert len(same) == 1 and len(other) == 2
  assert same[0][5] == ('bayes: KL and reverse KL; '
                        'enn2021: KL and reverse KL')
  # Every line shows its own number.
  assert same[0][3].count('10.0') >= 4 and 'enn2021 KL' in same[0][3]
  assert [(cells[4], cells[5]) for cells in other] == [
      ('**reproduced**', 'bayes: KL and reverse KL'),
      ('**not reproduced**', 'enn2021: KL and reverse KL')]
  assert other[0][3].startswith('bayes KL 3.00')
  # The brief one has no reasons, and nothing unmeasured beside what is.
  brief = claims_text.format_markdown(lines, brief=True)
  assert lines[0].why not in brief and '| why |' not in brief
  assert '| 1b, K = 2 |' in brief
  one_sided = [line for line in lines if line.claim == '2, K = 2']
  one_sided[0] = dataclasses.replace(one_sided[0],
                                     verdict=verdicts.NOT_MEASURED)
  brief = claims_text.format_markdown(one_sided, brief=True)
  assert 'not measured' not in brief
  brief = claims_text.format_markdown(one_sided[:1], brief=True)
  assert 'not measured' in brief
  # claims.csv has every line with its numbers.
  table = claims_text.make_table(lines)
  assert len(table) == len(lines)
  assert set(table['verdict']) <= set(verdicts.VERDICTS)


def test_command(tmp_path):
  store = results.open_store(tmp_path / 'results', create=True)
  units = {}
  for row in make_rows(settings.layer_ensemble(2), 0.4) + make_rows(
      settings.layer_ensemble(2, prior_scale=0.), 1.):
    units.setdefault(row['run_id'], []).append(row)
  for run_id, rows in units.items():
    store.write_unit(run_id, rows)
  figure3({2: 2., 5: 20.}).to_csv(tmp_path / 'figure3.csv')

  def run(*arguments):
    return commands.run_module(
        'experiments.verify_claims', f'--results_dir={tmp_path / "results"}',
        f'--output_dir={tmp_path / "out"}', *arguments)

  done = run(f'--figure3_csv={tmp_path / "figure3.csv"}')
  assert done.returncode == 0, done.stderr
  table = pd.read_csv(tmp_path / 'out' / 'claims.csv').set_index('claim')
  assert table['verdict'][f'4a, {ONE_BY_ONE}'] == 'reproduced'
  line = table.loc['2, K = 2'].iloc[0]
  assert line['ours'] == pytest.approx(2.5)
  assert (tmp_path / 'out' / 'claims.md').read_text() in done.stdout
  done = run('--seed=1,0')
  assert done.returncode == 0, done.stderr
  table = pd.read_csv(tmp_path / 'out' / 'claims.csv').set_index('claim')
  assert table.loc['2, K = 2'].iloc[0]['num_seeds'] == 2
  for seeds, message in (('77', '--seed=77: no row of '),
                         ('-1', 'every value of --seed must be'), ('', '')):
    done = run(f'--seed={seeds}')
    assert done.returncode == 2
    (text,) = done.stderr.splitlines()
    assert message in text
  done = run('--figure3_csv=nowhere.csv')
  assert done.returncode == 2
  (text,) = done.stderr.splitlines()
  assert 'nowhere.csv' in text
  done = run(f'--figure3_csv={tmp_path}')
  assert done.returncode == 2
  (text,) = done.stderr.splitlines()
  assert 'cannot be read: it is no regular file' in text
