"""What this machine can do: products, factorisations, memory bandwidth.

A speed says little without the speed that the machine has. Measured are, in the
BLAS and LAPACK of numpy and scipy:

- `sgemm` and `dgemm`: products of float32 and float64 matrices, 2 m k n
  operations; large ones, and stacks of small ones as training has them;
- `dpotrf`: Cholesky factorisation of n x n, n^3 / 3 operations; large, and of
  as many points as the problems have;
- `copy`: memory bandwidth, reading and writing an array that no cache holds.

Each in three ways: on one core; by one process with a thread per core; and by
one process per core, side by side, as sweeps use a machine. What all cores can
do is the faster of the last two. Every figure is the fastest of some trials (a
ceiling is what can be reached) beside their median: where the two are far
apart, the machine was not idle.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import statistics
import time
from typing import Any
from typing import NamedTuple

import numpy as np
import scipy.linalg

from enn_ensembles.machine import devices
from enn_ensembles.machine import worker_processes

LARGE_PRODUCT = 2048
LARGE_FACTORISATION = 3072  # The largest: larger ones take many seconds.
# Small products are measured in stacks, as of ten members at three noise
# levels. More would leave the cache, which training tries not to do.
NUM_STACKED = 30

# Of all processes together, and at least so much of each.
_COPY_BYTES, _LEAST_COPY_BYTES = 2**29, 2**26
_NUM_TRIALS = 3
_TRIAL_SECONDS = 0.1
_LONGEST_WAIT = 300.  # Seconds; another process has died then.

ONE_CORE, THREADS, SIDE_BY_SIDE = 'one core', 'threads', 'side by side'


@dataclasses.dataclass(frozen=True)
class Task:
  """Something that is measured.

  Attributes:
    routine: 'sgemm', 'dgemm', 'dpotrf' or 'copy'.
    shape: (m, k, n) of a product; (n,) of a factorisation; () of a copy.
    stacked: how many matrices are multiplied by one call; 1 is BLAS itself.
  """
  routine: str
  shape: tuple[int, ...] = ()
  stacked: int = 1

  @property
  def unit(self) -> str:
    """The unit of its rate."""
    return 'GB/s' if self.routine == 'copy' else 'GFLOP/s'

  @property
  def size(self) -> str:
    """As '30 x (100x50x50)'."""
    text = 'x'.join(map(str, self.shape))
    return text if self.stacked == 1 else f'{self.stacked} x ({text})'


class Figure(NamedTuple):
  """A measured rate.

  Attributes:
    task: what was done.
    how: 'one core', 'threads' or 'side by side'.
    num_cores: cores that were busy.
    best: the fastest trial, 1e9 operations or bytes per second.
    median: of the trials.
  """
  task: Task
  how: str
  num_cores: int
  best: float
  median: float


class Ceiling(NamedTuple):
  """All figures of a machine.

  Attributes:
    figures: as measured.
  """
  figures: Sequence[Figure]

  def rate(self, task: Task, all_cores: bool = True) -> float | None:
    """The best rate of a task, 1e9 per second.

    Args:
      task: the task.
      all_cores: of all cores, in the faster way; else of one.

    Returns:
      The rate; None where it was not measured.
    """
    found = [figure.best for figure in self.figures if figure.task == task
             and (all_cores or figure.how == ONE_CORE)]
    return max(found, default=None)

  def product_rate(self, dtype: Any,
                   shapes: Sequence[tuple[int, ...]] = ()) -> float | None:
    """GFLOP/s of all cores at products; None where they were not measured.

    Args:
      dtype: of the matrices.
      shapes: of the products that are done equally often, as stacks; none means
        large ones.
    """
    routine = gemm_name(dtype)
    if not shapes:
      return self.rate(Task(routine, (LARGE_PRODUCT,) * 3))
    rates = [self.rate(Task(routine, shape, NUM_STACKED)) for shape in shapes]
    if None in rates:
      return None
    operations = [float(np.prod(shape)) for shape in shapes]
    return sum(operations) / sum(
        num / rate for num, rate in zip(operations, rates))

  def factorisation_rate(self, size: int) -> float | None:
    """GFLOP/s of all cores at dpotrf; of the largest that was measured."""
    return self.rate(factorisation(size))


def gemm_name(dtype: Any) -> str:
  """The routine that multiplies matrices of this type.

  Raises:
    ValueError: it is neither float32 nor float64.
  """
  names = {'float32': 'sgemm', 'float64': 'dgemm'}
  name = np.dtype(dtype).name
  if name not in names:
    raise ValueError(f'dtype must be float32 or float64, got {name}.')
  return names[name]


def factorisation(size: int) -> Task:
  """The factorisation of so many points, or of as many as are measured."""
  return Task('dpotrf', (min(size, LARGE_FACTORISATION),))


def tasks(products: Iterable[tuple[Any, tuple[int, ...]]] = (),
          factorisations: Iterable[int] = ()) -> list[Task]:
  """What to measure: large sizes, and those that are used; none twice.

  Args:
    products: (dtype, (m, k, n)) of small products.
    factorisations: numbers of points.
  """
  found = [Task(routine, (LARGE_PRODUCT,) * 3)
           for routine in ('sgemm', 'dgemm')]
  found += [Task(gemm_name(dtype), tuple(shape), NUM_STACKED)
            for dtype, shape in products]
  found += [factorisation(size)
            for size in (LARGE_FACTORISATION, *factorisations)]
  return list(dict.fromkeys([*found, Task('copy')]))


def measure(todo: Sequence[Task], num_trials: int = _NUM_TRIALS,
            trial_seconds: float = _TRIAL_SECONDS) -> Ceiling:
  """Measures tasks on all cores of this process; about a second each.

  Args:
    todo: the tasks, of `tasks`.
    num_trials: of each task in each way.
    trial_seconds: about how long a trial takes.

  Raises:
    RuntimeError: a process ended before it had measured.
  """
  cores = devices.available_cores()
  ways = [(ONE_CORE, [cores[:1]])]
  if len(cores) > 1:
    ways += [(SIDE_BY_SIDE, [[core] for core in cores]), (THREADS, [cores])]
  figures = []
  for how, shares in ways:
    # A copy is one thread's work, whatever there is.
    doing = [task for task in todo
             if how != THREADS or task.routine != 'copy']
    rates = _measure_processes(doing, shares, num_trials, trial_seconds)
    figures += [
        Figure(task, how, sum(map(len, shares)), max(trials),
               statistics.median(trials))
        for task, trials in zip(doing, rates, strict=True)]
  order = {task: i for i, task in enumerate(todo)}
  return Ceiling(sorted(figures, key=lambda figure: order[figure.task]))


def _measure_processes(todo: Sequence[Task], shares: Sequence[Sequence[int]],
                       num_trials: int, trial_seconds: float
                       ) -> list[list[float]]:
  """Rates of processes with these cores, added up: per task, per trial."""
  # As many threads as cores, whatever the caller's environment says: this is
  # about what the machine can do.
  threads = [dict.fromkeys(devices.THREAD_VARIABLES, str(len(share)))
             for share in shares]
  copy_bytes = max(_LEAST_COPY_BYTES, _COPY_BYTES // len(shares))
  with worker_processes.SideBySide(
      _measure_rates,
      [(todo, copy_bytes, num_trials, trial_seconds)] * len(shares), shares,
      threads, _LONGEST_WAIT) as workers:
    found = workers.receive()
  return [[sum(rates) for rates in zip(*trials)] for trials in zip(*found)]


def _measure_rates(wait: Callable[[], Any], send: Callable[[Any], None],
                   todo: Sequence[Task], copy_bytes: int, num_trials: int,
                   trial_seconds: float) -> None:
  """What a process does: measures, and sends what it found."""
  send([_rates(*_prepare(task, copy_bytes), num_trials, trial_seconds, wait)
        for task in todo])


def _prepare(task: Task, copy_bytes: int) -> tuple[Callable[[], Any], float]:
  """A call that does a task once, and its operations or bytes."""
  generator = np.random.default_rng(0)
  if task.routine == 'copy':
    source = np.ones(copy_bytes // 2, np.uint8)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source), 2. * source.nbytes
  if task.routine == 'dpotrf':
    num, = task.shape
    matrix = generator.standard_normal((num, num))
    matrix = np.asfortranarray(matrix + matrix.T)
    matrix[np.diag_indices(num)] += 4. * num  # Positive definite by far.
    work = np.empty_like(matrix)
    dpotrf, = scipy.linalg.get_lapack_funcs(['potrf'], dtype=np.float64)

    def factorise():
      np.copyto(work, matrix)
      _, info = dpotrf(work, lower=1, clean=0, overwrite_a=1)
      if info != 0:
        raise RuntimeError(f'dpotrf of {num} points failed with {info}.')

    return factorise, num**3 / 3.
  dtype = {'sgemm': np.float32, 'dgemm': np.float64}[task.routine]
  m, k, n = task.shape
  if task.stacked == 1:
    a, b, c = (np.asfortranarray(generator.standard_normal(shape), dtype)
               for shape in ((m, k), (k, n), (m, n)))
    gemm = getattr(scipy.linalg.blas, task.routine)
    return lambda: gemm(1., a, b, c=c, overwrite_c=1), 2. * m * k * n
  a, b = (generator.standard_normal((task.stacked, *shape)).astype(dtype)
          for shape in ((m, k), (k, n)))
  out = np.empty((task.stacked, m, n), dtype)
  return lambda: np.matmul(a, b, out=out), 2. * task.stacked * m * k * n


def _rates(call: Callable[[], Any], amount: float, num_trials: int,
           trial_seconds: float, wait: Callable[[], Any],
           clock: Callable[[], float] = time.perf_counter) -> list[float]:
  """1e9 operations or bytes per second, one rate per trial.

  Args:
    call: does the task once.
    amount: operations or bytes of a call.
    num_trials: trials.
    trial_seconds: about how long a trial should take: many calls, or one.
    wait: called before every trial; processes meet there.
    clock: seconds.
  """
  call()  # Touches the memory, and wakes the threads up.
  num_calls, elapsed = 1, 0.
  while True:
    start = clock()
    for _ in range(num_calls):
      call()
    elapsed = clock() - start
    if elapsed >= 0.2 * trial_seconds:
      break
    num_calls *= 4
  num_calls = max(1, round(num_calls * trial_seconds / elapsed))
  rates = []
  for _ in range(num_trials):
    wait()
    start = clock()
    for _ in range(num_calls):
      call()
    rates.append(1e-9 * num_calls * amount / (clock() - start))
  return rates


def rows(ceiling: Ceiling) -> list[dict[str, Any]]:
  """The figures as rows of a table."""
  return [{'routine': figure.task.routine, 'size': figure.task.size,
           'how': figure.how, 'num_cores': figure.num_cores,
           'best': figure.best, 'median': figure.median,
           'unit': figure.task.unit} for figure in ceiling.figures]


def format_text(ceiling: Ceiling) -> str:
  """A line per task: one core and all cores, the fastest trials."""
  found: dict[Task, dict[str, Figure]] = {}
  for figure in ceiling.figures:
    found.setdefault(figure.task, {})[figure.how] = figure
  lines = []
  for task, by_how in found.items():
    parts = [f'{figure.best:.4g} ({figure.median:.4g}) {how}'
             for how, figure in by_how.items()]
    lines.append(f'  {task.routine:7}{task.size:18}{task.unit:8}'
                 f'{", ".join(parts)}')
  return '\n'.join(['What this machine can do, the best of some trials (their '
                    'median):', *lines])
