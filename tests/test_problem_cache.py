"""The cache of ground truth: what it saves, damaged files, many writers."""

import concurrent.futures
import json
import os
import pathlib
import time
import types

import commands
import pytest
from small_problems import assert_same
from small_problems import make_group
from small_problems import make_problem
from small_problems import NOISE_STDS
from small_problems import SMALL
from small_problems import small_config

from enn_ensembles import problems
from enn_ensembles.machine import file_locks
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import cache_entries


def _count_factorisations(monkeypatch) -> list[int]:
  """A list that gets the size of every matrix that is factorised."""
  sizes = []
  cholesky = posterior.cholesky

  def counted(matrix, *args, **kwargs):
    sizes.append(len(matrix))
    return cholesky(matrix, *args, **kwargs)

  monkeypatch.setattr(posterior, 'cholesky', counted)
  return sizes


def test_cache_saves_all_factorisations(tmp_path, monkeypatch):
  fresh = make_group(3, 4, NOISE_STDS, 0, **SMALL)
  sizes = _count_factorisations(monkeypatch)
  cache_dir = tmp_path / 'deep' / 'cache'

  def make(noise_stds, reference='bayes'):
    sizes.clear()
    made = make_group(3, 4, noise_stds, 0, reference, cache_dir, **SMALL)
    return made, len(sizes)

  made, count = make((0.1,))
  assert count == 4  # f at x_train, x_val and x_test, and one noise level.
  assert_same(made[0], fresh[1])
  made, count = make(NOISE_STDS)
  assert count == 2  # The other two.
  for a, b in zip(made, fresh, strict=True):
    assert_same(a, b)
  made, count = make(NOISE_STDS[::-1])
  assert count == 0
  for a, b in zip(made, fresh[::-1], strict=True):
    assert_same(a, b)
    assert not a.test_mean.flags.writeable
  assert make((0.1,), 'enn2021')[1] == 1  # f is the same.
  # No kernel matrix either, and no temporary file left.
  monkeypatch.setattr(kernels, 'nngp', None)
  assert make(NOISE_STDS)[1] == 0
  assert {path.suffix for path in cache_dir.iterdir()} == {'.cache'}


def test_cache_tells_problems_apart(tmp_path):
  configs = [small_config(), small_config(0.2), small_config(seed=1),
             small_config(num_test=6), small_config(num_val=6),
             small_config(input_dim=4, data_ratio=3),
             small_config(data_ratio=4.25), small_config(reference='enn2021'),
             small_config(kernel=kernels.KernelConfig(activation='erf'))]
  for _ in range(2):
    for config in configs:
      assert_same(make_problem(config, tmp_path), make_problem(config))


def _flip(content: bytes, position: int) -> bytes:
  changed = bytearray(content)
  changed[position] ^= 1
  return bytes(changed)


def _with_header(content: bytes, **fields) -> bytes:
  magic, header, payload = content.split(b'\n', 2)
  header = json.dumps({**json.loads(header), **fields}).encode()
  return b'\n'.join([magic, header, payload])


def _another_version(content: bytes) -> bytes:
  identity = json.loads(content.split(b'\n', 2)[1])['identity']
  other = identity.replace(
      f'"format_version":{cache_entries.FORMAT_VERSION}',
      '"format_version":999')
  assert other != identity
  return _with_header(content, identity=other)


_DAMAGES = {
    'empty': lambda content: b'',
    'foreign': lambda content: b'not a cache file\n' * 100,
    'zeros': lambda content: bytes(len(content)),
    'header only': lambda content: b'\n'.join(content.split(b'\n', 2)[:2]),
    'truncated header': lambda content: content[:60],
    'header is a list': lambda content: content.split(b'\n')[0] + b'\n[]\n',
    'truncated': lambda content: content[:-1],
    'half': lambda content: content[:len(content) // 2],
    'longer': lambda content: content + b'\0',
    'first bit': lambda content: _flip(content, 0),
    'bit in an array': lambda content: _flip(content, -400),
    'last bit': lambda content: _flip(content, -1),
    'other version': _another_version,
    'other draws': lambda content: _with_header(content,
                                                info={'inputs': '0' * 64}),
    'other checksum': lambda content: _with_header(content, sha256='0' * 64),
}


@pytest.mark.parametrize('damage', _DAMAGES)
@pytest.mark.parametrize('kind', ['function', 'e0.1'])
def test_cache_makes_damaged_files_again(tmp_path, caplog, kind, damage):
  fresh = make_problem(small_config(), tmp_path)
  path, = (path for path in tmp_path.iterdir() if kind in path.name)
  content = path.read_bytes()
  path.write_bytes(_DAMAGES[damage](content))
  assert path.read_bytes() != content
  assert_same(make_problem(small_config(), tmp_path), fresh)
  warning, = caplog.records
  assert str(path) in warning.getMessage()
  assert '\n' not in warning.getMessage()
  # It is whole again, and used.
  caplog.clear()
  if kind == 'function':  # The other one tells how long it took.
    assert path.read_bytes() == content
  assert_same(make_problem(small_config(), tmp_path), fresh)
  assert not caplog.records


def test_cache_takes_no_file_of_another_problem(tmp_path, caplog):
  """A file renamed to where another one should be."""
  make_problem(small_config(seed=1), tmp_path)
  other, = tmp_path.glob('*e0.1_s1*')
  make_problem(small_config(seed=0), tmp_path)
  path, = tmp_path.glob('*e0.1_s0*')
  path.write_bytes(other.read_bytes())
  assert_same(make_problem(small_config(seed=0), tmp_path),
              make_problem(small_config(seed=0)))
  assert 'another problem' in caplog.text


def test_cache_with_another_function_makes_the_posterior_again(
    tmp_path, caplog, monkeypatch):
  """Posteriors belong to their f, not only to their seed."""
  make_problem(small_config(), tmp_path)
  path, = tmp_path.glob('*function*')
  path.unlink()
  sample_prior = posterior.sample_prior
  monkeypatch.setattr(
      posterior, 'sample_prior', lambda *args, **kwargs: tuple(
          2 * f for f in sample_prior(*args, **kwargs)))
  cached = make_problem(small_config(), tmp_path)
  assert_same(cached, make_problem(small_config()))
  assert 'other draws' in caplog.text


def test_cache_takes_many_writers_at_once(tmp_path, caplog):
  fresh = make_group(3, 4, NOISE_STDS, 0, **SMALL)

  def work(i):
    made = []
    for _ in range(10):
      made.append(make_group(3, 4, NOISE_STDS, 0, cache_dir=tmp_path, **SMALL))
      if i % 2:  # As if no one had written yet.
        for path in tmp_path.glob('*.cache'):
          path.unlink(missing_ok=True)
    return made

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for groups in pool.map(work, range(8)):
      for group in groups:
        for a, b in zip(group, fresh, strict=True):
          assert_same(a, b)
  # On a busy machine somebody waits so long that it is said.
  assert not [record for record in caplog.records
              if ' gives back ' not in record.getMessage()]
  assert not list(tmp_path.glob('*.tmp'))


def _unwritable_folders(tmp_path: pathlib.Path) -> list[pathlib.Path]:
  file = tmp_path / 'file'
  file.write_text('')
  locked = tmp_path / 'locked'
  locked.mkdir(mode=0o500)
  folders = [file, file / 'below']
  if os.geteuid() != 0:  # Nothing is locked to root.
    folders += [locked, locked / 'below']
  return folders


def test_refuses_a_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
  sizes = _count_factorisations(monkeypatch)
  for folder in _unwritable_folders(tmp_path):
    with pytest.raises(ValueError, match='cache_dir') as error:
      make_problem(small_config(), folder)
    assert str(folder) in str(error.value)
    assert '\n' not in str(error.value)
  assert not sizes


def test_what_is_not_in_the_cache_is_not_read(tmp_path):
  configs = [small_config(0.1), small_config(0.2), small_config(0.1, seed=1)]
  read = lambda: problems.make_problems(configs, tmp_path, only_cached=True)
  assert read() == [None] * 3
  made = make_problem(configs[1], tmp_path)
  found = read()
  assert found[0] is found[2] is None
  assert_same(found[1], made)
  assert found[1].ground_truth == made.ground_truth
  with pytest.raises(ValueError, match='cache_dir must be given where only_c'):
    problems.make_problems(configs, only_cached=True)


def test_processes_that_want_the_same_do_it_once(tmp_path, monkeypatch):
  sizes = _count_factorisations(monkeypatch)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    made = list(pool.map(lambda _: make_problem(small_config(), tmp_path),
                         range(8)))
  assert len(sizes) == 4  # f three times, and one noise level.
  for problem in made:
    assert_same(problem, made[0])
  assert {path.suffix for path in tmp_path.iterdir()} == {'.cache'}


def test_the_lock_of_a_killed_process_does_not_stay(tmp_path, monkeypatch):
  claimed, claim = [], file_locks.claim
  monkeypatch.setattr(file_locks, 'claim',
                      lambda path: claimed.append(path) or claim(path))
  make_problem(small_config(), tmp_path)
  lock, = claimed
  lock.touch()  # As after SIGKILL.
  make_problem(small_config(), tmp_path)
  assert claimed == [lock] and not lock.exists()


def test_folders_of_steps_go_when_nobody_has_written_there_for_weeks(tmp_path):
  names = {'young': 'D2_function.0123456789.steps',
           'old': 'D2_function.abcdef0123.steps'}
  for age, days in (('young', 13.), ('old', 15.)):
    folder = tmp_path / names[age]
    folder.mkdir()
    for i in range(2):
      (folder / f'step_{i}.arrays').touch()
      # A step of long ago is needed as long as the last one is young.
      os.utime(folder / f'step_{i}.arrays',
               (time.time() - 86_400 * (days + 9. * (1 - i)),) * 2)
    os.utime(folder, (time.time() - 86_400 * (days + 9.),) * 2)
  cache_entries.remove_leftovers(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [names['young']]


def test_files_of_others_stay_in_a_folder_that_is_made_the_cache(tmp_path):
  owner = '{"host": "a", "pid": 1}'
  theirs = {
      'uv.lock': 'version = 1', 'empty.lock': '', 'own.lock': owner,
      'D2_l1_s0_function.lock.txt': owner, 'D4_l1_s0_function.lock': '[]',
      'run1/best.checkpoint': 'x', 'mesh.steps/a': 'x', '.notes.tmp': 'x',
      'run1/.a.cache.1.0123abcd.tmp': 'x',
      'D2_l1_s0_function.0123456789.steps/notes.txt': 'x'}
  ours = {'D2_l1_s0_function.lock': owner, 'D3_l1_s0_function.lock': '',
          '.a.cache.1.0123abcd.tmp': 'x',
          'D2_l1_s0_function.0123456789.steps/.b.arrays.1.0123abcd.tmp': 'x'}
  for name, text in {**theirs, **ours}.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    for each in (path, path.parent):
      os.utime(each, (time.time() - 86_400 * 40.,) * 2)
  cache_entries.remove_leftovers(tmp_path)
  assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*')
          if path.is_file()} == set(theirs)


def test_without_a_home_folder_the_flag_is_asked_for(tmp_path, monkeypatch):
  def nowhere():
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr(pathlib.Path, 'home', nowhere)
  flag = types.SimpleNamespace(name='cache_dir', value=None)
  module = commands.load_command('problem_flags')
  with pytest.raises(ValueError, match='^--cache_dir must be given: there is '
                     r'no home folder \(HOME, XDG_CACHE_HOME\)\.$'):
    module.cache_folder(flag, 'problems')
  flag.value = str(tmp_path)
  assert module.cache_folder(flag, 'problems') == str(tmp_path)
  flag.value = ''
  assert module.cache_folder(flag, 'problems') is None
