"""Cores, accelerators and threads: what a machine has and who uses it."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import subprocess
import sys

import jax

# A worker keeps to its cores: more threads than cores only wait for each other.
THREAD_VARIABLES = ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS',
                    'MKL_NUM_THREADS')


def x64_mode(enabled: bool) -> contextlib.AbstractContextManager[None]:
  """jax in 64-bit mode, or not, within a `with` block, of this thread alone."""
  if hasattr(jax, 'enable_x64'):
    return jax.enable_x64(enabled)
  # Where older versions have it.
  from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]
  return enable_x64(enabled)


def device_name() -> str:
  """The kind of device, and of CPU where that is the device."""
  devices = jax.local_devices()
  name = f'{devices[0].platform} {devices[0].device_kind}'
  if devices[0].platform == 'cpu':
    name = f'cpu {cpu_info().get("model name", platform.machine())}'
  return name if len(devices) == 1 else f'{len(devices)} x {name}'


def cpu_info() -> dict[str, str]:
  """What Linux says of the first core; empty on other systems."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return {}
  pairs = (line.split(':', 1) for line in text.split('\n\n')[0].splitlines()
           if ':' in line)
  return {key.strip(): value.strip() for key, value in pairs}


def available_cores() -> list[int]:
  """The cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def default_num_workers() -> int:
  """A worker per core on a CPU; one where jax would use an accelerator."""
  return len(available_cores()) if computes_on_cpu() else 1


def computes_on_cpu() -> bool:
  """Whether jax would use the CPU here.

  JAX_PLATFORMS decides where it is set. Otherwise jax itself is asked, in a
  process of its own (it would take the accelerator), but only where a plugin
  for one is installed: that costs seconds.
  """
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms:
    return platforms.split(',')[0].strip() == 'cpu'
  return not any(importlib.util.find_spec(name)
                 for name in ('jax_plugins', 'libtpu')) or (
                     _default_backend() == 'cpu')


@functools.cache
def _default_backend() -> str:
  """What jax says in a process of its own; empty where it says nothing."""
  asked = subprocess.run(
      [sys.executable, '-c', 'import jax; print(jax.default_backend())'],
      capture_output=True, text=True, check=False)
  return ''.join(asked.stdout.split()[-1:])


def visible_gpus() -> list[str]:
  """The GPUs that workers can be given, as CUDA_VISIBLE_DEVICES names them.

  Empty where jax is told to use something else.
  """
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms and platforms.split(',')[0].strip() not in ('cuda', 'gpu'):
    return []
  named = os.environ.get('CUDA_VISIBLE_DEVICES')
  if named is not None:
    return [name.strip() for name in named.split(',') if name.strip()]
  gpus = list(pathlib.Path('/proc/driver/nvidia/gpus').glob('*'))
  return [str(i) for i in range(len(gpus))]


def worker_environments(num_workers: int, environment: Mapping[str, str],
                        gpus: Sequence[str]) -> list[dict[str, str]]:
  """Environment variables that give each worker a GPU of its own.

  With more workers than GPUs they share memory too, which jax would otherwise
  take whole; XLA_PYTHON_CLIENT_MEM_FRACTION stays where it is set.
  """
  if not gpus:
    return [{} for _ in range(num_workers)]
  environments = []
  for i in range(num_workers):
    # As many as i, i + len(gpus), ... below num_workers.
    sharing = len(range(i % len(gpus), num_workers, len(gpus)))
    settings = {'CUDA_VISIBLE_DEVICES': gpus[i % len(gpus)]}
    if sharing > 1 and 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in environment:
      settings['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.9 / sharing:.3f}'
    environments.append(settings)
  return environments


@contextlib.contextmanager
def inherited_settings(cores: Sequence[int],
                       environment: Mapping[str, str] | None = None
                       ) -> Iterator[None]:
  """Cores and environment for processes that are started inside.

  Numpy and jax count cores when they are loaded, before a worker could say
  anything: it must be born on its cores.
  """
  settings = dict.fromkeys(THREAD_VARIABLES, str(len(cores)))
  info = cpu_info()
  if info.get('vendor_id') == 'AuthenticAMD' and (
      'avx512f' in info.get('flags', '').split()):
    # OpenBLAS takes AMD processors that it does not know for Haswell, which is
    # half as fast.
    settings['OPENBLAS_CORETYPE'] = 'SkylakeX'
  settings = {name: value for name, value in settings.items()
              if name not in os.environ}
  settings.update(environment or {})
  before = {name: os.environ.get(name) for name in settings}
  affinity = (os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity')
              else None)
  os.environ.update(settings)
  try:
    if affinity is not None:
      os.sched_setaffinity(0, cores)
    yield
  finally:
    if affinity is not None:
      os.sched_setaffinity(0, affinity)
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value


def cpu_kind() -> str:
  """A hash of the processor and its instructions: programs fit one kind."""
  info = cpu_info()
  kind = f'{platform.machine()} {info.get("model name")} {info.get("flags")}'
  return hashlib.sha256(kind.encode()).hexdigest()[:10]


# Families of vector instructions, the widest first: what XLA and the libraries
# of matrix products choose by.
_INSTRUCTION_SETS = ('amx_tile', 'avx512f', 'avx2', 'avx', 'asimd')


def numerics() -> dict[str, str | int]:
  """What decides the last digits of a result besides versions and device."""
  flags = set((cpu_info().get('flags') or cpu_info().get('Features', '')
               ).split())
  widest = [name for name in _INSTRUCTION_SETS if name in flags]
  return {
      'instruction_set': widest[0] if widest else platform.machine(),
      'xla_flags': os.environ.get('XLA_FLAGS', ''),
      'cores': len(available_cores())}
