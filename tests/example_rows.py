"""Rows made up for the tests of the store and of the reports."""

import itertools
import json
import math
import pathlib

import numpy as np
import pytest

from enn_ensembles import results

ROOT = pathlib.Path(__file__).resolve().parent.parent

_SCORES = {'kl_reverse': 0.25, 'mean_error': 0.1, 'std_error': 0.2,
           'mean_rmse': 0.3, 'std_ratio': 0.9, 'kl_floor': 0.175}
_CELL = ('input_dim', 'data_ratio', 'noise_std')
_RANKING = ('reference', 'kernel')


def make_row(kl=0.5, agent='ensemble-K10', seed=0, input_dim=10,
             data_ratio=1., noise_std=0.1, **fields):
  """A valid row of an NNGP problem.

  Args:
    kl: kl_estimate; None makes the row failed.
    agent: name of the agent setting; what stands before '-' is the agent.
    seed: of the problem, like the three that follow.
    input_dim: as above.
    data_ratio: as above.
    noise_std: as above.
    **fields: replace anything: fields of the row, scores, `reference` and
      `kernel`.
  """
  ranking = {'reference': 'bayes', 'kernel': 'relu2'}
  ranking.update({key: fields.pop(key) for key in _RANKING if key in fields})
  known = set(results.ROW_SCHEMA)
  scores = {'kl_estimate': kl, **_SCORES}
  scores.update({key: fields.pop(key) for key in list(fields)
                 if key not in known})
  problem_id = (f'D{input_dim}_l{data_ratio:g}_e{noise_std:g}_s{seed}_'
                f'{ranking["reference"]}')
  row = {
      'schema_version': results.SCHEMA_VERSION,
      'run_id': f'{agent}-D{input_dim}_l{data_ratio:g}',
      'agent': agent.split('-')[0].split(',')[0],
      'agent_id': f'id-of-{agent}',
      'agent_label': agent,
      'agent_config': {'num_ensemble': 10, 'hidden_sizes': [50, 50]},
      'problem_id': problem_id,
      'problem': {
          'kind': 'nngp', 'seed': seed,
          'cell': {'input_dim': input_dim, 'data_ratio': data_ratio,
                   'noise_std': noise_std},
          'ranking': ranking,
          'facts': {'num_train': int(input_dim * data_ratio)}},
      'score_set': 'nngp',
      'num_enn_samples': None,
      'enumerate_indices': True,
      'num_samples_used': 10,
      'selection': 'none',
      'dtype': 'float32',
      'status': 'failed' if kl is None else 'ok',
      'message': 'it broke' if kl is None else '',
      'scores': None if kl is None else scores,
      'curve': None,
      'by_set': None,
      'cost': None,
      'counts': None,
      'num_params': 1000,
      'train_seconds': 0.5,
      'evaluate_seconds': 0.1,
      'rank_seconds': None,
      'problem_seconds': 0.2,
      'compile_seconds': 3.,
      'versions': {'jax': '0.10.2', 'numpy': '2.4.6'},
      'device': 'cpu',
      'numerics': {'instruction_set': 'avx2'},
      'created': '2026-01-02T03:04:05Z',
      **fields,
  }
  protocol = '-'.join(str(row[key]) for key in results.PROTOCOL_FIELDS)
  row.setdefault('row_id', f'{agent}-{problem_id}-{protocol}')
  return row


def make_unit(**fields):
  """A run_id and three rows, one of them diverged, one failed."""
  rows = [make_row(0.1 + 0.2, seed=0, **fields),
          make_row(math.inf, seed=1, kl_reverse=math.nan, status='diverged',
                   message='kl_estimate is inf', **fields),
          make_row(None, seed=2, **fields)]
  return rows[0]['run_id'], rows


@pytest.fixture(name='store')
def make_store(tmp_path):
  """A results folder that is empty."""
  return results.open_store(tmp_path / 'results', create=True)


def edit_json(path, change):
  """Writes what change(document) makes of the file's document in place."""
  document = json.loads(path.read_text())
  change(document)
  path.write_text(json.dumps(document))


def make_entry(agent='ensemble-K10', input_dim=10, data_ratio=1.,
               noise_stds=(0.1,), seeds=(0, 1, 2), **fields):
  """A manifest entry that expects the rows of `make_row`."""
  row = make_row(agent=agent)
  cells = [{'input_dim': input_dim, 'data_ratio': data_ratio,
            'noise_std': noise_std} for noise_std in noise_stds]
  return {
      **{key: row[key] for key in ('agent', 'agent_id', 'agent_label',
                                   'agent_config', 'score_set',
                                   *results.PROTOCOL_FIELDS)},
      'problem': {'kind': 'nngp', 'cells': cells, 'seeds': list(seeds),
                  'ranking': row['problem']['ranking']},
      **fields}


def make_image_row(nll=0.5, agent='ensemble-K10', seed=0, dataset='digits',
                   **fields):
  """A valid row of another kind of problem: classification of pictures."""
  row = make_row(agent=agent, seed=seed, **fields)
  scores = None if nll is None else {'nll': nll}
  return {**row, 'problem_id': f'{dataset}_s{seed}',
          'row_id': f'{agent}-{dataset}-{seed}',
          'problem': {'kind': 'images', 'seed': seed,
                      'cell': {'dataset': dataset}, 'ranking': {},
                      'facts': {}},
          'score_set': 'classification', 'scores': scores,
          'status': 'failed' if nll is None else 'ok'}


def make_rows(agent='ensemble-K10', scores=((1., 2., 3.),), **fields):
  """Rows of one agent; scores[c][s] is the KL in cell c at seed s."""
  noise_stds = (0.01, 0.1, 1.)
  rows = []
  for noise_std, by_seed in zip(noise_stds, scores):
    for seed, kl in enumerate(by_seed):
      status = 'failed' if kl is None else (
          'ok' if math.isfinite(kl) else 'diverged')
      rows.append(make_row(kl, agent, seed, noise_std=noise_std,
                           status=status, **fields))
  return rows


def expect(rows):
  """The expected rows that these rows are the answer to."""
  keys = ('agent', 'agent_id', 'agent_label', 'agent_config', 'problem',
          'score_set', *results.PROTOCOL_FIELDS)
  return [{key: row[key] for key in keys} for row in rows]


def lines_by_label(tables):
  """label -> line of the leaderboard (of one ranking)."""
  return {line['label']: line for line in tables.leaderboard.to_dict('records')}


def realistic_rows(num_seeds=3):
  """Fourteen agent settings with everything that can be wrong with them."""
  generator = np.random.default_rng(0)
  rows, expected = [], []
  for agent, kl in (
      ('exact_posterior', 0.), ('exact_posterior-draws', 1e-9),
      ('layer_ensemble-K5', 0.08), ('layer_ensemble-K3', 0.2),
      ('ensemble-K10', 0.3), ('ensemble-K1', 1e5), ('hypermodel', 0.25),
      ('bbb', 1.), ('mc_dropout', 4.), ('batch_ensemble-K10', 2.),
      ('deep_sub_ensemble', 0.7), ('prior_only', 8.), ('map', 2e5),
      ('never_started', 1.)):
    draws = 1000 if agent in ('bbb', 'mc_dropout', 'hypermodel',
                                 'exact_posterior-draws') else None
    for dim, noise_std, seed in itertools.product(
        (10, 100), (0.01, 0.1, 1.), range(num_seeds)):
      score = float(kl * np.exp(0.3 * generator.normal()))
      status = 'ok'
      if (agent, dim, noise_std, seed) == ('bbb', 100, 1., 1):
        score, status = math.nan, 'diverged'
      if (agent, noise_std, seed) == ('deep_sub_ensemble', 1., 0):
        score, status = None, 'failed'
      row = make_row(
          score, agent, seed, dim, noise_std=noise_std, status=status,
          num_enn_samples=draws, kl_floor=math.inf if kl >= 1e5 else 0.175,
          num_params=None if kl == 0 else 100 * dim)
      expected += expect([row])
      if not ((agent, dim) == ('hypermodel', 100)
              or agent == 'never_started'):
        rows.append(row)
  return rows, expected
