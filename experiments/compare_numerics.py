"""How far rows of one computation differ between two results folders.

python -m experiments.compare_numerics --results_dir=DIR,DIR

For one sweep on two machines, or with two settings that decide the last digits.
Prints a table of the classes of `enn_ensembles/results/tolerance.py`, with the
largest differences of scores that both folders have and what is allowed, and
then a line per row that contradicts its copy.

Exit codes: 0 no row contradicts its copy; 1 one does; 2 bad input.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from enn_ensembles import results
from enn_ensembles.report import text
from enn_ensembles.report import text_tables
from enn_ensembles.results import tolerance
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Two folders that sweeps have written to.',
    required=True)

# Scores that differ by no more are rounding of 0.
ROUNDING_OF_ZERO = 1e-6


class Difference(NamedTuple):
  """A score of a row that both folders have.

  Attributes:
    relative: the difference of its values as a share of the larger one; 0
      where it is ROUNDING_OF_ZERO.
    absolute: the difference itself.
    where: score, agent setting and problem.
  """
  relative: float
  absolute: float
  where: str


def _cells(score_class: tolerance.ScoreClass,
           found: Sequence[Difference]) -> list[str]:
  """A line of the table; differences that are no matter of a class are '-'."""
  allowed = score_class.tolerance
  cells = [score_class.meaning, f'{len(found):,}']
  for name, matters in (('relative', allowed is None or allowed.relative > 0),
                        ('absolute', allowed is None
                         or allowed.absolute > ROUNDING_OF_ZERO)):
    largest = max(found, key=lambda one: getattr(one, name))
    value = getattr(largest, name)
    cells.append('-' if not matters else text.short_number(value)
                 + (f' ({largest.where})' if value else ''))
  cells.append('anything' if allowed is None else ' or '.join(
      f'{value:g}' for value in allowed if value))
  return cells


def _difference(row: results.Row, other: results.Row,
                name: str) -> Difference:
  """That of one score."""
  value, another = row['scores'][name], other['scores'][name]
  absolute = 0. if results.same_value(value, another) else abs(value - another)
  samples = row['num_samples_used']
  return Difference(
      tolerance.relative_difference(value, another)
      if absolute > ROUNDING_OF_ZERO else 0., absolute,
      f'{name}, {row["agent"]}'
      + (f' of {samples} samples' if samples else '')
      + f' on {row["problem_id"]}')


def main(_) -> int:
  if len(cli.names(_RESULTS_DIR)) != 2:
    raise ValueError('--results_dir must be two folders, got '
                     f'{len(_RESULTS_DIR.value)}.')
  rows, others = (
      {row['row_id']: row for row in results.open_store(folder).read_rows()
       if row['scores'] is not None} for folder in _RESULTS_DIR.value)
  shared = [row_id for row_id in rows if row_id in others]
  if not shared:
    raise ValueError(f'--results_dir must be folders that share scored rows; '
                     f'{" and ".join(_RESULTS_DIR.value)} share none.')
  by_class, contradictions = collections.defaultdict(list), []
  for row_id in shared:
    row, other = rows[row_id], others[row_id]
    for name, score_class in tolerance.classes_of(row, other).items():
      by_class[score_class].append(_difference(row, other, name))
    try:
      tolerance.difference(row, other)
    except tolerance.ContradictionError as error:
      contradictions.append(
          f'{row["agent_label"]} on {row["problem_id"]}, selection '
          f'{row["selection"]}: {error.field} {error.value!r} and '
          f'{error.other!r}')
  print(f'{len(shared)} rows are in both folders.\n')
  print(text_tables.markdown(
      ('scores', 'values', 'relative difference, at most',
       'absolute difference, at most', 'allowed'),
      (_cells(score_class, by_class[score_class])
       for score_class in sorted(by_class)), right=[1]))
  print(f'{len(contradictions)} of {len(shared)} rows contradict their copy.',
        *contradictions, sep='\n')
  return 1 if contradictions else 0


if __name__ == '__main__':
  cli.run_main(main)
