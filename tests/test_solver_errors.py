"""What the command solver_errors measures."""

from enn_ensembles.studies import solver_errors


def test_errors_are_measured_beside_their_bounds():
  """Rows for every number of block steps, dense or not, and their plot."""
  rows = []
  for dense in (True, False):
    rows = solver_errors.measure(60, 5., 0, [0.01, 1.], 20, dense, 1000., None,
                                 num_rows=10)
    last = max(row['num_block_steps'] for row in rows)
    assert last >= 3
    assert sorted((row['num_block_steps'], row['noise_std']) for row in rows
                  ) == [(step, noise_std) for step in range(1, last + 1)
                        for noise_std in (0.01, 1.)]
    for row in rows:
      assert ('std_error' in row) == dense
      if dense:
        assert row['std_error'] <= row['std_error_bound']
      assert ('mean_error_bound' in row) == (row['num_block_steps'] == last)
      if 'mean_error' in row:
        assert row['mean_error'] <= row['mean_error_bound']
    assert sum('mean_error' in row for row in rows) == (2 if dense else 0)
    assert solver_errors.is_exact(rows)
    assert solver_errors.plot(rows).startswith(b'\x89PNG')
