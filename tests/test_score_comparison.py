"""Ranks side by side: agents whose order by each score is planted."""

import commands
import example_rows
import numpy as np
import pandas as pd
import pytest

from enn_ensembles import results
from enn_ensembles.report import columns
from enn_ensembles.report import score_comparison

SCORES = ['kl_estimate', 'joint_kl_dyadic_tau10', 'wasserstein', 'crps_excess']
LEVELS = {'a-1': 0.1, 'b-1': 0.2, 'c-1': 0.5, 'd-1': 1.5, 'prior_only': 1.}


def make_rows():
  """Joint KL is the square of the KL; Wasserstein orders the other way."""
  rows, rng = [], np.random.default_rng(0)
  for agent, level in LEVELS.items():
    for noise_std in (0.1, 1.):
      for seed in range(6):
        kl = level * (5. if noise_std == 1. else 1.) * rng.uniform(0.99, 1.01)
        rows.append(example_rows.make_row(
            kl, agent, seed, noise_std=noise_std, wasserstein=1. / kl,
            joint_kl_dyadic_tau10=kl**2, crps_excess=-0.1 + level))
  rows += [example_rows.make_row(
      1e-4, 'exact_posterior', seed, noise_std=noise_std, wasserstein=1e-4,
      joint_kl_dyadic_tau10=1e-4, crps_excess=0.)
           for noise_std in (0.1, 1.) for seed in range(6)]
  # So few members that it has no rank by KL.
  rows += [example_rows.make_row(
      100., 'map', seed, noise_std=noise_std, kl_floor=float('inf'),
      wasserstein=9., joint_kl_dyadic_tau10=9., crps_excess=9.)
           for noise_std in (0.1, 1.) for seed in range(6)]
  return rows


def test_ranks_and_relations():
  found = score_comparison.compare_scores(columns.collect(make_rows()), [],
                                          SCORES)
  ranks = found.ranks.set_index('label')
  assert ranks['kl_estimate_rank'].to_dict() == {
      'exact_posterior': 1, 'a-1': 2, 'b-1': 3, 'c-1': 4, 'prior_only': 5,
      'd-1': 6, 'map': None}
  assert ranks['wasserstein_rank'].to_dict() == {
      'exact_posterior': 1, 'd-1': 2, 'prior_only': 3, 'c-1': 4, 'b-1': 5,
      'a-1': 6, 'map': 7}
  assert ranks.loc['a-1', 'crps_excess_rank'] == 1  # May be negative.
  relations = found.relations.set_index('score')
  # Of five agents without the audit and without the one that is not ranked.
  assert relations['num_agents'].tolist() == [5, 5, 5]
  assert relations['num_pairs'].tolist() == [10, 10, 10]
  told = relations['num_pairs_told_apart_by_both']
  assert told['joint_kl_dyadic_tau10'] == told['wasserstein'] == 10
  assert relations['num_pairs_in_opposite_order'].to_dict() == {
      'joint_kl_dyadic_tau10': 0, 'wasserstein': 10, 'crps_excess': 0}
  unexplained = relations['share_of_variance_not_explained']
  # Means over seeds of squares and inverses: not quite powers of the mean.
  assert unexplained['joint_kl_dyadic_tau10'] == pytest.approx(0., abs=1e-5)
  assert unexplained['wasserstein'] == pytest.approx(0., abs=1e-5)
  assert 0.01 < unexplained['crps_excess'] < 0.5


def test_command(tmp_path):
  store = results.open_store(tmp_path / 'rows', create=True)
  units = {}
  for row in make_rows():
    units.setdefault(row['run_id'], []).append(row)
  for run_id, rows in units.items():
    store.write_unit(run_id, rows)
  good = [f'--results_dir={tmp_path / "rows"}',
          f'--output_dir={tmp_path / "out"}', f'--scores={",".join(SCORES)}']
  bad = [*good[:2], '--scores=kl_estimate,kl_floor']
  (code, out, error), (bad_code, _, bad_error) = commands.run_commands(
      'compare_scores', good, bad)
  assert code == 0, error
  assert '| a-1 | 2 | 2 | 6 | 1 |' in out
  text = (tmp_path / 'out' / 'score_relations.csv').read_text()
  assert text.startswith('score,beside,num_agents,num_pairs,')
  assert bad_code == 2 and "'kl_floor' is neither" in bad_error


def test_another_ranking_stays_out():
  # Other kernels, and images, whose scores would turn the order round.
  rows = make_rows()
  others = [example_rows.make_row(
      10., agent, seed, noise_std=noise_std, kernel='erf3', wasserstein=1.,
      joint_kl_dyadic_tau10=1. / LEVELS[agent], crps_excess=1.)
            for agent in LEVELS for noise_std in (0.1, 1.) for seed in range(6)]
  others += [example_rows.make_image_row(seed=seed) for seed in range(2)]
  alone, among = (score_comparison.compare_scores(columns.collect(r), [],
                                                  SCORES)
                  for r in (rows, rows + others))
  pd.testing.assert_frame_equal(alone.ranks, among.ranks)
  pd.testing.assert_frame_equal(alone.relations, among.relations)


def test_an_agent_of_two_precisions_is_two_settings():
  rows = [{**row, 'dtype': dtype} for row in make_rows()
          for dtype in ('float32', 'float64')]
  for i, row in enumerate(rows):
    row['row_id'] = f'{row["row_id"]}-{i}'
  found = score_comparison.compare_scores(columns.collect(rows), [], SCORES)
  assert len(found.ranks) == 2 * 7
  assert found.relations['num_agents'].tolist() == [10, 10, 10]


def test_images_have_scores_of_their_own():
  rows = [example_rows.make_image_row(nll, agent, seed)
          for agent, nll in (('a-1', 0.1), ('b-1', 0.2), ('c-1', 0.3))
          for seed in range(3)]
  found = score_comparison.compare_scores(columns.collect(rows), [], ['nll'])
  assert found.ranks['nll_rank'].tolist() == [1, 2, 3]
