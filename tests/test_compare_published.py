"""The comparison with published scores, on a problem made here."""

import functools
import os
import pathlib

import commands
import numpy as np
import pytest

from enn_ensembles import problems
from enn_ensembles.studies import published_code

ROOT = pathlib.Path(__file__).resolve().parent.parent


run = functools.partial(commands.run_module, 'experiments.compare_published')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A stored problem and a CSV of made-up published scores."""
  path = tmp_path_factory.mktemp('published')
  problem, = problems.make_problems([problems.ProblemConfig(
      4, 2., 0.1, seed=0, reference='enn2021', num_test=50, num_val=10)])
  np.savez(path / 'D4_l2_e0.1_s0.npz', x_train=problem.x_train,
           y_train=problem.y_train, x_test=problem.x_test, x_val=problem.x_val,
           test_mean=problem.test_mean, test_std=problem.test_std)
  (path / 'scores.csv').write_text(
      'agent,input_dim,data_ratio,noise_std,seed,kl_estimate\n'
      'ensemble_10,4,2,0.1,0,0.25\n')
  return path


def test_ratio_is_ours_over_published(folder):
  done = run(f'--problems_dir={folder}', '--num_agent_seeds=1',
             f'--published_csv={folder / "scores.csv"}')
  assert done.returncode == 0, done.stderr
  (line,) = done.stdout.splitlines()
  name, _, ratio, *_, pair = line.split()
  ours, published = map(float, pair.split('/'))
  assert name == 'ensemble_10' and published == 0.25
  assert float(ratio) == pytest.approx(ours / 0.25, rel=0.01)
  # Ten members with priors: near the posterior, not at it.
  assert 0.01 < ours < 5.


def test_bad_input_is_one_line(folder, tmp_path):
  os.mkfifo(tmp_path / 'D4_l3_e0.1_s0.npz')
  csv = f'--published_csv={folder / "scores.csv"}'
  for arguments, text in (
      ((f'--problems_dir={tmp_path}', csv), 'on the problems of problems_dir'),
      ((f'--problems_dir={tmp_path / "no"}', csv), 'holds none'),
      ((f'--problems_dir={folder}', csv, '--agents=nobody'), "'nobody'"),
      ((f'--problems_dir={folder}', csv, '--agents=bbb'),
       "these problems, 'bbb' has none"),
      ((f'--problems_dir={folder}', f'--published_csv={tmp_path}'),
       'cannot be read: it is no regular file'),
      ((f'--problems_dir={folder}', f'--published_csv={tmp_path / "no.csv"}'),
       'no.csv')):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ''
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: ') and text in line


def test_a_stored_problem_is_read_before_anything_is_trained(folder, tmp_path):
  path = tmp_path / 'D4_l2_e0.1_s0.npz'
  for make, text in (
      (lambda: os.mkfifo(path), 'it is no regular file'),
      (lambda: path.write_bytes((folder / path.name).read_bytes()[:-100]),
       'it is damaged or truncated'),
      (lambda: path.write_bytes(b''), 'it is damaged or truncated'),
      (lambda: np.savez(path, x_train=np.zeros(3)), 'must hold the arrays')):
    make()
    with pytest.raises(ValueError, match=text):
      published_code.read_problem(path)
    path.unlink()
