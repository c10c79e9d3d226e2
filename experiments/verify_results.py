"""Recomputes random rows of a results folder and compares them.

python -m experiments.verify_results --results_dir=DIR --share=0.05

A row passes where every score is within the tolerance that the project promises
(`enn_ensembles/results/tolerance.py`). What came out is kept in the folder's
verification.csv, and boards show it; nothing else is written but caches. Rows
of predictions that somebody brought, of images (they do not say all that their
problem was made of), failed rows and rows of user-defined agents whose file, in
the version that made them, is not given are not checked, and counted apart.

Exit codes: 0 all rows pass; 1 a row does not; 2 bad input.
"""

from collections.abc import Sequence
import pathlib
import random

from absl import flags

from enn_ensembles import agents as agents_lib
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import files
from enn_ensembles.problems import kinds
from enn_ensembles.results import tolerance
from enn_ensembles.results import verification
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units
from experiments import cli
from experiments import problem_flags

_RESULTS_DIR = flags.DEFINE_string(
    'results_dir', None, 'A folder that a sweep has written to.', required=True)
_SHARE = flags.DEFINE_float('share', 0.05, 'Part of the rows to recompute.')
_RANDOM_SEED = flags.DEFINE_integer('random_seed', 0, 'Of the choice of rows.')


def unit_of(row: results.Row, together: Sequence[results.Row],
            num_enn_samples: int) -> sweeps.WorkUnit:
  """The work unit that computes a row again, on the cells it was made with.

  Args:
    row: the row.
    together: rows of its run; they say which cells were trained together.
    num_enn_samples: draws that were asked for.
  """
  problem = row['problem']
  cells = {results.cell_of(other): other['problem']['cell']
           for other in together
           if other['problem']['seed'] == problem['seed']}
  config = {name: tuple(value) if isinstance(value, list) else value
            for name, value in row['agent_config'].items()}
  return sweeps.WorkUnit(
      row['agent'], row['agent_label'], config,
      kinds.load_kind(problem['kind']).family_of(
          list(cells.values()), problem['ranking']),
      (problem['seed'],), num_enn_samples, row['enumerate_indices'],
      row['dtype'], (row['selection'],))


def recompute(unit: sweeps.WorkUnit, row: results.Row,
              options: unit_results.RunOptions) -> results.Row:
  """The row of the same problem, computed now."""
  rows, _ = one_unit.run_unit(unit, options)
  return results.check_row(next(
      new for new in rows
      if results.problem_of(new) == results.problem_of(row)))


def compare(old: results.Row, new: results.Row) -> str:
  """What differs by more than is promised, in words; empty if nothing does."""
  if new['status'] != old['status']:
    return f'status {old["status"]} is now {new["status"]}'
  shared = {name: value for name, value in old['scores'].items()
            if name in new['scores']}
  try:
    # Rows of an older program lack the scores that were added since. A row's
    # name depends on the draws that were asked for, which those of members and
    # of moments do not say.
    tolerance.difference(
        {**old, 'scores': shared},
        {**new, 'row_id': old['row_id'],
         'scores': {name: new['scores'][name] for name in shared}})
  except tolerance.ContradictionError as error:
    return f'{error.field} {error.value!r} is now {error.other!r}'
  return ''


def _read_sources() -> dict[str, str | None]:
  """agent -> hash of the file of a user-defined one, None of the package's.

  Raises:
    ValueError: a file is no agent.
  """
  modules = problem_flags.agent_modules()
  sources: dict[str, str | None] = dict.fromkeys(agents_lib.agent_names())
  for path in modules:
    module = work_units.load_agent(pathlib.Path(path).stem, modules)
    sources[module.name] = work_units.source_of(path)
  return sources


def main(_) -> int:
  if not 0 < _SHARE.value <= 1:
    raise ValueError(f'share must be in (0, 1], got {_SHARE.value}.')
  problem_flags.use_data_dir()
  files.check_folder(_RESULTS_DIR.value, 'results_dir')  # For its findings.
  rows = results.open_store(_RESULTS_DIR.value).read_rows()
  verification.read(_RESULTS_DIR.value)  # It shows here if it is damaged.
  sources = _read_sources()
  known = [row for row in rows if row['status'] != 'failed'
           and row['agent'] in sources and sources[row['agent']]
           == row['agent_config'].get(work_units.SOURCE_FILE)
           and hasattr(kinds.load_kind(row['problem']['kind']), 'family_of')]
  if not known:
    raise ValueError(f'results_dir {_RESULTS_DIR.value!r} has no row that can '
                     'be computed again.')
  chosen = random.Random(_RANDOM_SEED.value).sample(
      known, max(1, round(_SHARE.value * len(known))))
  options = unit_results.RunOptions(
      results_dir=_RESULTS_DIR.value,
      agent_modules=problem_flags.agent_modules(),
      problem_settings=problem_flags.problem_settings())
  one_unit.configure_jax(options)
  num_failed = 0
  for row in chosen:
    together = [other for other in rows if other['run_id'] == row['run_id']]
    unit = unit_of(row, together, row['num_enn_samples'] or 1000)
    new = recompute(unit, row, options)
    wrong = compare(row, new)
    print(f'{"FAILED" if wrong else "passed"}: {row["agent_label"]} on '
          f'{row["problem_id"]}{": " if wrong else ""}{wrong}', flush=True)
    num_failed += bool(wrong)
    # One by one: a check that is stopped leaves what it has found.
    verification.record(_RESULTS_DIR.value, {row['row_id']: wrong})
  print(f'{len(chosen) - num_failed} of {len(chosen)} rows pass; '
        f'{len(rows) - len(known)} of {len(rows)} rows cannot be checked.')
  return 1 if num_failed else 0


if __name__ == '__main__':
  cli.run_main(main)
