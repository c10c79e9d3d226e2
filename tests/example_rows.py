"""Rows made up for the tests of the store and of the leaderboard."""

from enn_ensembles import results


def make_row(kl=0.5, agent_id='ensemble-K10', seed=0, input_dim=10,
             data_ratio=1., noise_std=0.1, **fields):
  """A valid row; `kl` None makes it failed, `fields` replace anything."""
  problem_id = f'D{input_dim}_l{data_ratio:g}_e{noise_std:g}_s{seed}_bayes'
  score = lambda value: None if kl is None else value
  row = {
      'schema_version': results.SCHEMA_VERSION,
      'run_id': f'{agent_id}-D{input_dim}_l{data_ratio:g}',
      'agent': agent_id.split('-')[0],
      'agent_id': agent_id,
      'agent_config': {
          'num_ensemble': 10,
          'hidden_sizes': [50, 50]
      },
      'problem_id': problem_id,
      'input_dim': input_dim,
      'data_ratio': data_ratio,
      'noise_std': noise_std,
      'seed': seed,
      'reference': 'bayes',
      'kernel': 'relu2',
      'num_train': int(input_dim * data_ratio),
      'num_enn_samples': None,
      'enumerate_indices': True,
      'num_samples_used': 10,
      'selection': 'none',
      'dtype': 'float32',
      'status': 'failed' if kl is None else 'ok',
      'message': 'it broke' if kl is None else '',
      'kl_estimate': kl,
      'kl_reverse': score(0.25),
      'mean_error': score(0.1),
      'std_error': score(0.2),
      'mean_rmse': score(0.3),
      'std_ratio': score(0.9),
      'kl_floor': 0.175,
      'path': None,
      'num_params': 1000,
      'train_seconds': 0.5,
      'rank_seconds': None,
      'evaluate_seconds': 0.1,
      'problem_seconds': 0.2,
      'compile_seconds': 3.,
      'versions': {
          'jax': '0.10.2',
          'numpy': '2.4.6'
      },
      'device': 'cpu',
      'created': '2026-01-02T03:04:05Z',
      **fields
  }
  protocol = '-'.join(str(row[key]) for key in results.PROTOCOL_FIELDS)
  row.setdefault('row_id', f'{agent_id}-{problem_id}-{protocol}')
  return row


def make_entry(agent_id='ensemble-K10', input_dim=10, data_ratio=1.,
               noise_stds=(0.1,), seeds=(0, 1, 2), **fields):
  """A manifest entry that expects the rows of `make_row`."""
  row = make_row(agent_id=agent_id)
  return {
      **{key: row[key] for key in ('agent', 'agent_id', 'agent_config',
                                   *results.PROTOCOL_FIELDS)},
      'input_dim': input_dim, 'data_ratio': data_ratio,
      'noise_stds': list(noise_stds), 'seeds': list(seeds), **fields}
