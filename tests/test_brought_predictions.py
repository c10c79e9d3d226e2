"""Predictions that somebody brings: scored as the agent's own, or refused."""

import io
import json
import pathlib
import runpy
import zipfile

import commands
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import results
from enn_ensembles.problems import brought_predictions
from enn_ensembles.problems import kinds
from enn_ensembles.problems import problem_export
from enn_ensembles.report import html_page
from enn_ensembles.results import verification

PROBLEM_ID = 'D2_l2_e0.1_s0_bayes'
_EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'examples'


@pytest.fixture(name='problem', scope='module')
def _problem():
  family, seed = kinds.find_problem(PROBLEM_ID)
  return family.make(seed, kinds.ProblemSettings())[0]


def make_arrays(problem, num_samples=12):
  rng = np.random.default_rng(0)
  return {
      'samples': rng.standard_normal((num_samples, len(problem.x_test))),
      'dyadic_samples': rng.standard_normal(
          (num_samples, len(problem.x_dyadic)))}


@pytest.mark.parametrize('problem_id, reference, ratio', [
    ('D10_l1_e0.1_s0', 'bayes', 1.), ('D10_l0.5_e1e-05_s3_enn2021', 'enn2021',
                                      0.5)])
def test_names_of_problems_are_read_back(problem_id, reference, ratio):
  family, seed = kinds.find_problem(problem_id)
  config, = family.configs(seed)
  assert (config.reference, config.data_ratio) == (reference, ratio)
  assert config.problem_id.startswith(problem_id)
  assert kinds.find_problem(config.problem_id) == (family, seed)


@pytest.mark.parametrize('problem_id', [
    'D10_l1_e0.1', 'x', 'D10_l1_e0.1_s0_other', 'D10_l1_e0.1_s-1', ''])
def test_other_names_are_refused_in_one_line(problem_id):
  with pytest.raises(ValueError, match='D10_l1_e0.1_s0_bayes.* got') as error:
    kinds.find_problem(problem_id)
  assert '\n' not in str(error.value)


def test_rows_equal_those_of_the_api(problem, tmp_path):
  arrays = make_arrays(problem)
  folder = tmp_path / 'predictions'
  folder.mkdir()
  np.savez(folder / f'{PROBLEM_ID}.npz', **arrays,
           x_test_sha256=problem_export.array_sha256(problem.x_test))
  flags = [f'--predictions={folder}', '--label=my method',
           f'--results_dir={tmp_path / "results"}',
           f'--cache_dir={commands.shared_problems()}']
  (code, out, error), = commands.run_commands('score_predictions', flags)
  assert code == 0, error
  assert "1 rows of 'my method'" in out
  tables, _ = html_page.build(tmp_path / 'results', tmp_path / 'board')
  assert tables.leaderboard['num_brought'].tolist() == [1]
  row, = results.open_store(tmp_path / 'results').read_rows()
  points = {len(problem.x_test): 'samples',
            len(problem.x_dyadic): 'dyadic_samples'}
  expected = problem.score(lambda x: base.Predictions(
      arrays[points[len(x)]][:, :, None]))
  assert row['scores'] == pytest.approx(expected, rel=1e-12, abs=1e-12)
  assert row['num_samples_used'] == 12 and row['agent'] == 'brought'
  pit = scipy.stats.norm(arrays['samples'].mean(axis=0),
                         arrays['samples'].std(axis=0)).cdf(
                             problem.f_test[:, 0])
  assert row['counts'] == {'test': {
      'pit_count': np.histogram(pit, np.arange(21) / 20)[0].tolist()}}
  assert row['agent_label'] == 'my method'


def test_the_example_with_scikit_learn_is_read(problem, tmp_path):
  example = runpy.run_path(str(_EXAMPLES / 'sklearn_predictions.py'))
  (tmp_path / 'problems').mkdir()
  path = problem_export.export_problem(problem, tmp_path / 'problems')
  example['main'](tmp_path / 'problems', tmp_path)
  scores = {}
  for method in ('gaussian_process', 'random_forest'):
    predict = brought_predictions.read_predictions(
        tmp_path / method / path.name, problem)
    assert predict.has_dyadic
    scores[method] = problem.score(predict)
    assert np.isfinite(scores[method]['joint_kl_dyadic_tau10'])
  # Exact moments have no floor; 300 trees have one.
  assert scores['gaussian_process']['kl_floor'] == 0
  assert 0 < scores['random_forest']['kl_floor'] < 0.01


def test_moments_need_no_dyadic_points(problem, tmp_path):
  path = tmp_path / f'{PROBLEM_ID}.npz'
  np.savez(path, mean=problem.test_mean, std=problem.test_std,
           covariances=problem.test_covariances)
  predict = brought_predictions.read_predictions(path, problem)
  assert not predict.has_dyadic
  found = predict(problem.x_test)
  assert found.num_samples is None
  with pytest.raises(ValueError, match='no predictions at these 2 points'):
    predict(problem.x_test[:2])


def _wrong(arrays, **changes):
  return {name: value for name, value in {**arrays, **changes}.items()
          if value is not None}


def _moments(covariances):
  return {'samples': None, 'mean': np.ones(1000), 'std': np.ones(1000),
          'covariances': covariances}


def test_floats_of_another_byte_order_are_floats(problem, tmp_path):
  path = tmp_path / f'{PROBLEM_ID}.npz'
  np.savez(path, samples=make_arrays(problem)['samples'].astype('>f8'))
  found = brought_predictions.read_predictions(path, problem)(problem.x_test)
  np.testing.assert_array_equal(found.samples[..., 0],
                                make_arrays(problem)['samples'])


@pytest.mark.parametrize('change, message', [
    (lambda a: {'samples': a['samples'].T}, r'shape \[S, 1000\].* transposed'),
    (lambda a: {'samples': np.where(np.arange(1000) == 3, np.nan,
                                    a['samples'])}, '12 NaN or infinite'),
    (lambda a: {'samples': a['samples'].astype(int)}, 'float32 or float64, got '
                                                      'int64'),
    (lambda a: {'samples': a['samples'][:0]}, 'at least one draw'),
    (lambda a: {'samples': None}, 'either samples, or mean and std; got none'),
    (lambda a: {'std': np.ones(1000)}, 'got samples, std'),
    (lambda a: {'samples': None, 'mean': np.ones(1000),
                'std': -np.ones(1000)}, 'std must be >= 0, got -1'),
    (lambda a: {'samples': None, 'mean': np.ones(999), 'std': np.ones(1000)},
     r'mean must have shape \[1000\], got \[999\]'),
    (lambda a: {'sample': a['samples']}, "unknown array 'sample'"),
    (lambda a: {'x_test_sha256': 'abc'}, 'is not of problem'),
    (lambda a: {'samples': np.array(['a'] * 1000)}, 'got <U1'),
    (lambda a: _moments(np.tile(2 * np.eye(10) - 1, (100, 1, 1))),
     'covariances must be positive semidefinite'),
    (lambda a: _moments(np.tile(np.eye(10) + np.triu(np.ones((10, 10)), 1),
                                (100, 1, 1))), 'covariances must be symmetric'),
    (lambda a: _moments(np.tile(9. * np.eye(10), (100, 1, 1))),
     r'std\^2 on their diagonals, got 9 where std\^2 is 1'),
    (lambda a: {**_moments(None), 'dyadic_samples': None,
                'dyadic_mean': np.ones(300), 'dyadic_std': np.ones(300)},
     'dyadic_covariances beside dyadic_mean'),
])
def test_bad_files_get_one_line(problem, tmp_path, change, message):
  arrays = make_arrays(problem)
  path = tmp_path / f'{PROBLEM_ID}.npz'
  np.savez(path, **_wrong(arrays, **change(arrays)))
  with pytest.raises(ValueError, match=message) as error:
    brought_predictions.read_predictions(path, problem)
  assert '\n' not in str(error.value) and str(path) in str(error.value)


def _written(write, changes=()):
  """The bytes that `write` gives a stream, with those at some places changed.

  A place is a text, whose last occurrence counts, and a distance from it.
  """
  stream = io.BytesIO()
  write(stream)
  content = bytearray(stream.getvalue())
  for text, distance, value in changes:
    content[content.rfind(text) + distance] = value
  return bytes(content)


def _zip(name, content):
  def write(stream):
    with zipfile.ZipFile(stream, 'w') as file:
      file.writestr(name, content)
  return _written(write)


def _save(stream):
  np.savez(stream, mean=np.zeros(3))


_HEADERS = (b'PK\1\2', b'PK\3\4')  # Of the list at the end, of a member.
_HUGE = _written(lambda stream: np.lib.format.write_array_header_1_0(stream, {
    'descr': '<f8', 'fortran_order': False, 'shape': (10**7, 10**7)}))


@pytest.mark.parametrize('content, message', [
    (b'', ''), (b'no zip', ''), (b'PK\x03\x04 cut short', ''),
    (_zip('mean', '1 2 3'), "'mean' is no array"),
    (_written(_save, zip(_HEADERS, (10, 8), (93, 93))), 'compression'),
    (_written(_save, zip(_HEADERS, (8, 6), (1, 1))), 'encrypted'),
    (_zip('samples.npy', _HUGE), 'nable to allocate'),
    (_written(lambda stream: np.save(stream, np.zeros(3))), 'an .npy file')])
def test_files_that_are_none_get_one_line(problem, tmp_path, content, message):
  path = tmp_path / f'{PROBLEM_ID}.npz'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='damaged or truncated') as error:
    brought_predictions.read_predictions(path, problem)
  assert '\n' not in str(error.value) and message in str(error.value)
  assert str(error.value).startswith(str(path))
  with pytest.raises(ValueError, match='cannot be read: No such file'):
    brought_predictions.read_predictions(tmp_path / 'none.npz', problem)


def test_commands_refuse_in_one_line(problem, tmp_path):
  empty = tmp_path / 'empty'
  other = tmp_path / 'other'
  twice = tmp_path / 'twice'
  for folder in (empty, other, twice):
    folder.mkdir()
  short = PROBLEM_ID.removesuffix('_bayes')
  for name in (short, PROBLEM_ID):
    np.savez(twice / f'{name}.npz', **make_arrays(problem))
  np.savez(other / 'mine.npz', **make_arrays(problem))
  flags = ['--label=a', f'--results_dir={tmp_path / "results"}',
           f'--cache_dir={commands.shared_problems()}']
  commands.check_refused('score_predictions', [
      ([f'--predictions={tmp_path / "none"}', *flags], 'must be a folder'),
      ([f'--predictions={empty}', *flags], 'holds no .npz file'),
      ([f'--predictions={other}', *flags], 'must be named by its problem'),
      ([f'--predictions={other}', *flags, '--label==SUM(A1)'],
       'label must be 1 to 80'),
      ([f'--predictions={twice}', *flags],
       f'{twice}/{short}.npz and {twice}/{PROBLEM_ID}.npz are of one problem'),
      # Before any file is looked at.
      ([f'--predictions={other}', *flags, f'--results_dir={other}'],
       'is not empty and no results store of enn_ensembles (it has mine.npz'),
  ])
  assert not (tmp_path / 'results').exists()


def test_a_wrong_row_is_found(tmp_path):
  config = tmp_path / 'config.py'
  config.write_text("INPUT_DIM = [2]\nDATA_RATIO = [2]\nNOISE_STD = [0.1, 1.]\n"
                    "SEED = [0]\nAGENTS = [{'agent': 'prior_only'},"
                    "{'agent': 'map', 'num_batches': 2}]\n")
  folder = tmp_path / 'results'
  (code, _, error), = commands.run_commands('run_sweep', [
      f'--config={config}', f'--results_dir={folder}',
      f'--cache_dir={commands.shared_problems()}', '--num_workers=1',
      '--compilation_cache_dir='])
  assert code == 0, error
  flags = [f'--results_dir={folder}', '--share=1',
           f'--cache_dir={commands.shared_problems()}']
  (code, out, error), = commands.run_commands('verify_results', flags)
  assert code == 0 and '4 of 4 rows pass' in out, (out, error)
  store = results.open_store(folder)
  rows = [row for row in store.read_rows() if row['agent'] == 'map']
  for row in rows:  # As if another machine had made them.
    row['numerics']['instruction_set'] = 'another'
  rows[0]['scores']['kl_estimate'] *= 1.5
  store.write_unit(rows[0]['run_id'], rows)
  (code, out, _), = commands.run_commands('verify_results', flags)
  assert code == 1 and '3 of 4 rows pass' in out and 'kl_estimate' in out
  # What was checked last is kept, and the board shows it.
  assert sorted(verification.read(folder).values()) == [False, True, True, True]
  tables, _ = html_page.build(folder, tmp_path / 'board')
  board = tables.leaderboard.set_index('agent')
  assert board.loc['map', ['num_brought', 'num_recomputed',
                           'num_verified']].tolist() == [0, 2, 1]
  assert '2 rows recomputed, 1 verified' in (
      tmp_path / 'board' / 'leaderboard.html').read_text()
  (folder / verification.FILE_NAME).write_text('row_id\n')
  with pytest.raises(ValueError, match='must have the columns row_id, passed'):
    html_page.build(folder, tmp_path / 'board')
  assert json.dumps(rows)  # Plain data, as it was read.
