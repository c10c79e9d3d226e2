"""Cores, accelerators and what processes inherit of them."""

import os

from enn_ensembles.machine import devices


def test_workers_have_their_own_gpus(monkeypatch):
  alone = devices.worker_environments(4, {}, ['0', '1', '2', '3'])
  assert [e['CUDA_VISIBLE_DEVICES'] for e in alone] == ['0', '1', '2', '3']
  assert all(len(e) == 1 for e in alone)
  # Five on two: memory is shared by three and by two.
  shared = devices.worker_environments(5, {}, ['4', '7'])
  assert [tuple(e.values()) for e in shared] == [
      ('4', '0.300'), ('7', '0.450'), ('4', '0.300'), ('7', '0.450'),
      ('4', '0.300')]
  told = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '.2'}
  assert all(len(e) == 1 for e in devices.worker_environments(5, told, ['0']))
  assert devices.worker_environments(2, {}, []) == [{}, {}]

  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'GPU-a, GPU-b')
  assert devices.visible_gpus() == ['GPU-a', 'GPU-b']
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  assert devices.visible_gpus() == []
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert devices.visible_gpus() == []


def test_settings_are_inherited_and_given_back(monkeypatch):
  monkeypatch.setenv('OMP_NUM_THREADS', '7')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
  before = dict(os.environ)
  with devices.inherited_settings(devices.available_cores()[:1],
                                 {'CUDA_VISIBLE_DEVICES': '1', 'NEW': 'x'}):
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '1'
    assert os.environ['NEW'] == 'x'
    assert os.environ['OMP_NUM_THREADS'] == '7'  # What is set stays.
    assert os.environ['OPENBLAS_NUM_THREADS'] == '1'
  assert os.environ == before


def test_default_num_workers(monkeypatch):
  cores = len(devices.available_cores())
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert devices.default_num_workers() == cores
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda,cpu')
  assert devices.default_num_workers() == 1
