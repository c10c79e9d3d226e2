"""The benchmark's table: what workers measured, together, beside the ceiling.

Seconds are those of the whole machine: wall time per problem while all workers
are at it. Every figure has three columns: the median of the repeats under its
own name, and the lowest and the highest with _low and _high.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import platform
from typing import Any

import jax

from enn_ensembles import sweeps
from enn_ensembles.studies.speed import case
from enn_ensembles.studies.speed import ceiling as ceiling_lib
from enn_ensembles.studies.speed import lengths

Row = dict[str, Any]

# Adam reads and writes a parameter and its two moments in every step.
_PASSES_OF_ADAM = 6


def make_row(unit: sweeps.WorkUnit, found: Sequence[case.Measurement],
             ceiling: ceiling_lib.Ceiling | None,
             machine: Mapping[str, Any]) -> Row:
  """A row of the table: what the workers measured on one unit, together.

  Args:
    unit: the case.
    found: one measurement per worker.
    ceiling: what the machine can do; None leaves the shares empty, as the
      ceiling of a CPU does where another device computes.
    machine: columns on the state of the machine.

  Returns:
    Column -> value; None where there is none. Compile seconds and memory are
    those of the worker with the most.
  """
  if not found[0].device.startswith('cpu'):
    ceiling = None
  problem = lengths.interval(lengths.machine_seconds(
      [m.problem_seconds for m in found]))
  network_columns = _network_columns(unit, found, ceiling)
  train = lengths.interval(lengths.machine_seconds(
      [m.train_seconds for m in found]))
  score = lengths.interval(lengths.machine_seconds(
      [m.score_seconds for m in found]))
  total = lengths.Interval(*map(sum, zip(problem, train, score)))
  cell = unit.family.cells[0]
  return {
      'agent_label': unit.agent_label, 'input_dim': cell['input_dim'],
      'data_ratio': cell['data_ratio'], 'num_train': unit.family.num_train,
      'dtype': unit.dtype, 'num_workers': len(found),
      'num_problems': sum(m.num_problems for m in found),
      **_interval_columns('start_to_score_seconds', total),
      'problems_per_second': 1. / total.median,
      **_interval_columns('problem_seconds', problem),
      'problem_share_of_dpotrf': _problem_share(unit, problem.median, ceiling),
      **_interval_columns('train_seconds', train),
      **_interval_columns('score_seconds', score),
      **network_columns,
      'peak_rss_mb': max((m.peak_rss_mb for m in found
                          if m.peak_rss_mb is not None), default=None),
      **_ceiling_columns(unit, ceiling), **machine, 'device': found[0].device,
      'jax': jax.__version__, 'jaxlib': jax.lib.__version__,
      'python': platform.python_version()}


def _interval_columns(name: str, found: lengths.Interval | None) -> Row:
  median, low, high = found or (None, None, None)
  return {name: median, f'{name}_low': low, f'{name}_high': high}


def _speed(flops: float, seconds: lengths.Interval) -> lengths.Interval | None:
  """GFLOP/s; None where the clock was too coarse."""
  if not min(seconds) > 0:
    return None
  return lengths.Interval(*(1e-9 * flops / s for s in (
      seconds.median, seconds.high, seconds.low)))


def _median(found: lengths.Interval | None) -> float | None:
  return None if found is None else found.median


def _problem_share(unit: sweeps.WorkUnit, seconds: float,
                   ceiling: ceiling_lib.Ceiling | None) -> float | None:
  """The part of making a problem that its T x T factorisations would take.

  One draws f, and one per noise level makes its posterior.
  """
  if ceiling is None:
    return None
  rate = ceiling.factorisation_rate(unit.family.num_train)
  num_levels = len(unit.family.cells)
  gflop = 1e-9 * unit.family.num_train**3 / 3. * (1 + num_levels) / num_levels
  return lengths.share(gflop / seconds, rate)


def _network_columns(unit: sweeps.WorkUnit, found: Sequence[case.Measurement],
                     ceiling: ceiling_lib.Ceiling | None) -> Row:
  """Columns of agents with a network; None in each for others."""
  parts = [m.network for m in found if m.network is not None]
  if not parts:
    return dict.fromkeys(_NETWORK_COLUMNS)
  first = parts[0]
  timing = lengths.together([part.timing for part in parts])
  lines = timing.lines()
  once = lengths.interval([line.once for line in lines])
  step = lengths.interval([line.step for line in lines])
  speed = _speed(first.step_flops, step)
  predict = lengths.interval(lengths.machine_seconds(
      [part.predict_seconds for part in parts]))
  predict_speed = _speed(first.predict_flops, predict)
  large = used = copy = None
  if ceiling is not None:
    large = ceiling.product_rate(unit.dtype)
    shapes = case.used_products(unit)
    used = ceiling.product_rate(unit.dtype, shapes) if shapes else None
    copy = ceiling.rate(ceiling_lib.Task('copy'))
  item_size = {'float32': 4, 'float64': 8}[unit.dtype]
  traffic = 1e-9 * _PASSES_OF_ADAM * item_size * first.num_params
  row = {
      'num_params': first.num_params, 'num_steps': first.num_steps,
      **_interval_columns('train_once_seconds', once),
      **_interval_columns('train_step_seconds', step),
      'train_steps_short': timing.lengths.short,
      'train_steps_long': timing.lengths.long,
      'train_whole': timing.lengths.long == first.num_steps,
      'train_gflop': 1e-9 * first.step_flops * first.num_steps,
      **_interval_columns('train_gflop_per_second', speed),
      'train_share_of_large': lengths.share(_median(speed), large),
      'train_share_of_used': lengths.share(_median(speed), used),
      'train_share_of_copy': lengths.share(
          traffic / step.median if step.median > 0 else None, copy),
      **_interval_columns('predict_seconds', predict),
      'predict_gflop_per_second': _median(predict_speed),
      'predict_share_of_large': lengths.share(_median(predict_speed), large),
      'compile_first_seconds': max(p.compile_first_seconds for p in parts),
      'compile_cached_seconds': max(p.compile_cached_seconds for p in parts),
      'program_mb': max(p.program_bytes for p in parts) / 1e6,
      **_plain_columns(parts, [m.train_seconds for m in found], large)}
  return {name: row[name] for name in _NETWORK_COLUMNS}


def _plain_columns(parts: Sequence[case.Network],
                   train_seconds: Sequence[Sequence[float]],
                   large: float | None) -> Row:
  """Columns of the plain way; None in each where it was not measured."""
  plains = [part.plain for part in parts if part.plain is not None]
  if not plains:
    return dict.fromkeys(_PLAIN_COLUMNS)
  num_steps = parts[0].num_steps
  timing = lengths.together([plain.timing for plain in plains])
  seconds = timing.seconds_at(num_steps)
  step = lengths.interval([line.step for line in timing.lines()])
  speed = _speed(plains[0].flops, step)
  ours = lengths.machine_seconds(train_seconds)
  # The two took turns: each ratio is of neighbours in time.
  ratio = lengths.interval([p / t for p, t in zip(seconds, ours, strict=True)])
  row = {
      **_interval_columns('plain_seconds', lengths.interval(seconds)),
      **_interval_columns('plain_step_seconds', step),
      'plain_steps_short': timing.lengths.short,
      'plain_steps_long': timing.lengths.long,
      'plain_compile_seconds': max(p.compile_seconds for p in plains),
      'plain_gflop': 1e-9 * plains[0].flops * num_steps,
      'plain_gflop_per_second': _median(speed),
      'plain_share_of_large': lengths.share(_median(speed), large),
      **_interval_columns('ratio', ratio)}
  return {name: row[name] for name in _PLAIN_COLUMNS}


def _ceiling_columns(unit: sweeps.WorkUnit,
                     ceiling: ceiling_lib.Ceiling | None) -> Row:
  """The rates that shares are taken of."""
  names = ('ceiling_large', 'ceiling_used', 'ceiling_dpotrf', 'ceiling_copy')
  if ceiling is None:
    return dict.fromkeys(names)
  shapes = case.used_products(unit)
  return dict(zip(names, (
      ceiling.product_rate(unit.dtype),
      ceiling.product_rate(unit.dtype, shapes) if shapes else None,
      ceiling.factorisation_rate(unit.family.num_train),
      ceiling.rate(ceiling_lib.Task('copy'))), strict=True))


def _three(name: str) -> tuple[str, str, str]:
  return name, f'{name}_low', f'{name}_high'


_PLAIN_COLUMNS = (
    *_three('plain_seconds'), *_three('plain_step_seconds'),
    'plain_steps_short', 'plain_steps_long', 'plain_compile_seconds',
    'plain_gflop', 'plain_gflop_per_second', 'plain_share_of_large',
    *_three('ratio'))
_NETWORK_COLUMNS = (
    'num_params', 'num_steps', *_three('train_once_seconds'),
    *_three('train_step_seconds'), 'train_steps_short', 'train_steps_long',
    'train_whole', 'train_gflop', *_three('train_gflop_per_second'),
    'train_share_of_large', 'train_share_of_used', 'train_share_of_copy',
    *_three('predict_seconds'), 'predict_gflop_per_second',
    'predict_share_of_large', 'compile_first_seconds',
    'compile_cached_seconds', 'program_mb', *_PLAIN_COLUMNS)
