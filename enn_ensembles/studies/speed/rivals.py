"""Training of image classifiers here and in PyTorch, side by side.

Each case is a training of so many steps on noise in the shape of images. Ours
and theirs run by turns, in processes of their own that wait while the other
measures, so that whatever else the machine does touches both. Figures are the
fastest of the repeats; a ratio is theirs over ours.

The same case is asked of several runners:

  hand        PyTorch as one writes it by hand, networks one after the other
  routine     torch-uncertainty's routine and data module
  ours        this package, one process with all cores
  our sweep   one process per core at once, as in a sweep; seconds per training
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import os
import subprocess
from typing import Any
from typing import NamedTuple

from enn_ensembles.machine import devices


class Case(NamedTuple):
  """One comparison.

  Attributes:
    name: of the case here and of the hand-written one in PyTorch.
    num_steps: minibatches of 128.
    num_networks: networks that a training trains, for images per second.
    routine: name of the case of torch-uncertainty; None where there is none.
    goals: runner of PyTorch -> what the ratio to ours is to reach.
  """
  name: str
  num_steps: int
  num_networks: int
  routine: str | None = None
  goals: Mapping[str, float] = {}


_EPOCH = 468  # Whole batches of 60,000 images.

CASES = (
    Case('mlp_ensemble', _EPOCH, 4, 'routine_mlp_ensemble',
         {'hand': 6., 'routine': 10.}),
    Case('mlp_batch_ensemble', _EPOCH, 4, 'routine_mlp_batch_ensemble',
         {'hand': 3., 'routine': 5.}),
    Case('small_cnn', 40, 1, None, {'hand': 1.2}),
    Case('small_cnn_ensemble', 40, 4, None, {'hand': 2.}),
)
# Beside 'small_cnn': 27 combinations, four a step; no more than 4 times it.
LAYER_ENSEMBLE = Case('small_cnn_layer_ensemble', 40, 4)


class Runner:
  """A process that trains what it is asked, by a line of JSON each.

  Args:
    command: starts it.
    cores: that it may use.
    num_threads: that it is told to use.
    environment: variables besides those of this process.
  """

  def __init__(self, command: Sequence[str], cores: Sequence[int],
               num_threads: int, environment: Mapping[str, str]):
    self._num_threads = num_threads
    self._process = subprocess.Popen(
        ['taskset', '-c', ','.join(map(str, cores)), *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **environment,
             'OMP_NUM_THREADS': str(num_threads)})

  def ask(self, case: str, num_steps: int) -> None:
    """Asks for a training; `answer` waits for it."""
    assert self._process.stdin is not None  # It is a pipe.
    with contextlib.suppress(BrokenPipeError):  # `answer` tells it.
      self._process.stdin.write(json.dumps({
          'case': case, 'num_steps': num_steps,
          'num_threads': self._num_threads}) + '\n')
      self._process.stdin.flush()

  def answer(self) -> dict[str, Any]:
    """{'seconds', 'version'}, or {'error'}.

    Raises:
      RuntimeError: the process ended.
    """
    assert self._process.stdout is not None  # It is a pipe.
    line = self._process.stdout.readline()
    if not line:
      raise RuntimeError(f'{self._process.args} ended without an answer; what '
                         'it said stands above.')
    return json.loads(line)

  def close(self) -> None:
    """Ends the process."""
    self._process.terminate()
    self._process.wait()


def _measure(runners: Sequence[Runner], case: str, num_steps: int
             ) -> dict[str, Any]:
  """Seconds of one training, all runners at once: wall time over trainings."""
  for runner in runners:
    runner.ask(case, num_steps)
  answers = [runner.answer() for runner in runners]
  if any('error' in answer for answer in answers):
    return answers[0]
  return {**answers[0], 'seconds': max(
      answer['seconds'] for answer in answers) / len(answers)}


def compare(ours: Sequence[str], theirs: Sequence[str], repeats: int,
            cache_dir: str) -> Iterator[list[dict[str, Any]]]:
  """Measures all cases, one after the other.

  Args:
    ours: the command that runs `own_cases`.
    theirs: the command that runs scripts/pytorch_cases.py.
    repeats: of every case, >= 1; each runner has one more to warm up.
    cache_dir: a folder for compiled programs: each is compiled once.

  Yields:
    Of each case, a line per runner: seconds of the fastest and of the slowest
    repeat, images per second and member, ratios of the fastest to ours, the
    goal of the ratio, and the version. What cannot be run has no line.
  """
  cores = devices.available_cores()
  cached = {'JAX_COMPILATION_CACHE_DIR': cache_dir,
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
            'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1'}
  groups = {
      'hand': [Runner(theirs, cores, len(cores), {})],
      'hand, one thread': [Runner(theirs, cores[:1], 1, {})],
      'routine': [Runner(theirs, cores, len(cores), {})],
      'ours': [Runner(ours, cores, len(cores), cached)],
      'our sweep': [Runner(ours, [core], 1, cached) for core in cores]}
  try:
    for case in (*CASES, LAYER_ENSEMBLE):
      asked = {name: case.routine if name == 'routine' else case.name
               for name in groups}
      if case is LAYER_ENSEMBLE:
        asked = dict.fromkeys(('ours', 'our sweep'), case.name)
      seconds: dict[str, list[float]] = {}
      versions: dict[str, str] = {}
      for repeat in range(repeats + 1):
        for name, case_name in asked.items():
          if case_name is None:
            continue
          found = _measure(groups[name], case_name, case.num_steps)
          if 'error' in found:
            asked = {**asked, name: None}
            versions[name] = found['error']
          elif repeat:
            seconds.setdefault(name, []).append(found['seconds'])
            versions[name] = found['version']
      yield _lines(case, seconds, versions)
  finally:
    for runners in groups.values():
      for runner in runners:
        runner.close()


def _lines(case: Case, seconds: Mapping[str, Sequence[float]],
           versions: Mapping[str, str]) -> list[dict[str, Any]]:
  """The lines of one case, fastest repeats."""
  best = {name: min(values) for name, values in seconds.items()}
  lines = []
  for name, value in best.items():
    images = case.num_steps * 128 * case.num_networks
    lines.append({
        'case': case.name, 'runner': name, 'seconds': value,
        'slowest': max(seconds[name]),
        'member_images_per_second': images / value,
        'ratio_to_ours': value / best['ours'],
        'ratio_to_our_sweep': value / best['our sweep'],
        'goal': case.goals.get(name), 'version': versions[name]})
  return lines
