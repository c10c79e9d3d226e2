"""Claims of cores: each of several processes has another one."""

import pathlib

import pytest
from test_file_locks import holder

from enn_ensembles.machine import core_claims
from enn_ensembles.machine import file_locks


@pytest.fixture(name='folder', autouse=True)
def _folder(tmp_path, monkeypatch):
  monkeypatch.setattr(file_locks.tempfile, 'gettempdir', lambda: tmp_path)
  return file_locks.machine_folder()


def test_each_has_another_core_while_there_are_any(folder):
  with core_claims.claim_core([4, 7]) as first:
    with core_claims.claim_core([4, 7]) as second:
      with core_claims.claim_core([4, 7]) as third:
        assert [first, second, third] == [4, 7, 4]
    with core_claims.claim_core([7]) as again:
      assert again == 7
  assert not list(folder.iterdir())


def test_a_core_is_free_again_when_its_process_is_killed(folder):
  with holder(folder / 'core_2.lock'):
    with core_claims.claim_core([2, 3]) as core:
      assert core == 3
  with core_claims.claim_core([2, 3]) as core:
    assert core == 2


def test_without_locks_it_is_the_first(monkeypatch):
  monkeypatch.setattr(file_locks, 'fcntl', None)
  with core_claims.claim_core([5, 6]) as first:
    with core_claims.claim_core([5, 6]) as second:
      assert [first, second] == [5, 5]


def test_a_folder_that_somebody_else_made_is_not_used(folder):
  folder.chmod(0o777)
  with core_claims.claim_core([5, 6]) as first:
    with core_claims.claim_core([5, 6]) as second:
      assert [first, second] == [5, 5]
  assert not list(pathlib.Path(folder).iterdir())
