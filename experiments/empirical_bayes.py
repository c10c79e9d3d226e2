"""Are deep ensembles empirical Bayes? Tables, pictures and verdicts.

python -m experiments.empirical_bayes --output_dir=OUT

Trains ensembles on testbed cells and on digits (scikit-learn's, no file is
needed), weighs their members by their likelihoods, and writes ensembles.csv,
weights.csv, seconds.csv, verdicts.csv, verdicts.md and three pictures. What is
trained is kept in OUT/units: the same command goes on where it was stopped, and
several commands with other --problems may share a folder. --problems=mnist
needs --data_dir.
"""

from collections.abc import Sequence
import functools
import itertools
from typing import Any

from absl import flags
import jax
import pandas as pd

from enn_ensembles import checks
from enn_ensembles.machine import files
from enn_ensembles.problems import image_data
from enn_ensembles.problems import image_files
from enn_ensembles.report import csv_files
from enn_ensembles.studies import kept_units
from enn_ensembles.studies import verdict_tables
from enn_ensembles.studies.empirical_bayes import diversity
from enn_ensembles.studies.empirical_bayes import drawing
from enn_ensembles.studies.empirical_bayes import units
from enn_ensembles.studies.empirical_bayes import verdicts
from experiments import cli
from experiments import data_flags

flags.adopt_module_key_flags(data_flags)

_MOST_SEEDS = 10_000

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the results go; made if missing.', required=True)
_PROBLEMS = flags.DEFINE_list(
    'problems', ['D10_l1', 'D10_l10', 'digits'], 'Testbed cells and data sets '
    'of images.')
_KINDS = flags.DEFINE_list(
    'kinds', list(units.KINDS), f'Members: {", ".join(units.KINDS)}.')
_NUM_SEEDS = flags.DEFINE_integer(
    'num_seeds', 5, 'Seeds of a testbed cell.', lower_bound=1,
    upper_bound=_MOST_SEEDS)
_NUM_DIGITS_SEEDS = flags.DEFINE_integer(
    'num_digits_seeds', 3, 'Seeds of digits, or of other images.',
    lower_bound=1, upper_bound=_MOST_SEEDS)
_NUM_MEMBERS = flags.DEFINE_list(
    'num_members', ['10', '30'], 'Sizes of ensembles, increasing.')
_NUM_BATCHES = flags.DEFINE_integer(
    'num_batches', 4000, 'Steps of training.', lower_bound=1,
    upper_bound=1_000_000)

_DIVERSITY = flags.DEFINE_bool(
    'diversity', False, 'Only where the diversity of members comes from, on '
    'digits: diversity.csv and diversity.png.')
_ONLY_KEPT = flags.DEFINE_bool(
    'only_kept', False, 'Train nothing; report what OUT/units holds.')

# Steps at which ensembles are measured, beside the last one.
_SNAPSHOTS = (0, 10, 30, 100, 300, units.USUAL_STEPS)

# What `OUT/units` holds changes with this.
_FORMAT = 2


@functools.cache
def _checksums(dataset: str) -> tuple[str, ...]:
  """Of its images: what is kept is not taken for others of the same name."""
  return tuple(
      image_files.read_images(dataset, split, data_flags.data_dir()).sha256
      for split in image_data.SPLITS)


def _make_units() -> list[kept_units.Unit]:
  snapshots = tuple(step for step in _SNAPSHOTS if step < _NUM_BATCHES.value)
  num_members = tuple(cli.numbers(
      _NUM_MEMBERS, int, functools.partial(checks.check_size, minimum=2)))
  if list(num_members) != sorted(num_members):
    raise ValueError('--num_members must be increasing, got '
                     f'{",".join(_NUM_MEMBERS.value)}.')
  made = []
  for problem, kind in itertools.product(
      cli.names(_PROBLEMS), cli.names(_KINDS, units.KINDS)):
    are_images = units.is_images(problem)
    checksums = _checksums(problem) if are_images else ()
    num_seeds = (_NUM_DIGITS_SEEDS if are_images else _NUM_SEEDS).value
    made += [_make_unit(units.Unit(
        problem, kind, seed, num_members, _NUM_BATCHES.value,
        (*snapshots, _NUM_BATCHES.value)), checksums)
             for seed in range(num_seeds)]
  return made


_TABLES = 'ensembles', 'weights'


def _make_unit(unit: units.Unit, checksums: Sequence[str]) -> kept_units.Unit:
  """The lines of a unit, and what they cost."""
  name = f'{unit.problem}_{unit.kind}_s{unit.seed}'.replace(':', '_')

  def run() -> kept_units.Tables:
    lines, costs = kept_units.run_counted(
        name, lambda: units.run(unit, data_flags.data_dir()))
    return {**dict(zip(_TABLES, lines, strict=True)), 'seconds': [{
        'problem': unit.problem, 'kind': unit.kind, 'seed': unit.seed,
        'cpu_seconds': round(costs['cpu_seconds'], 1),
        'peak_memory_mb': costs['peak_memory_mb']}]}

  return kept_units.Unit(
      name, [unit, unit.config, unit.init_spread, _FORMAT, *checksums], run,
      functools.partial(_is_unit, unit), lambda tables: tables)


def _is_unit(unit: units.Unit, found: Any) -> bool:
  """Whether it has lines of all tables, and all of them are this unit's."""
  return (isinstance(found, dict) and set(found) == {*_TABLES, 'seconds'}
          and all(kept_units.are_lines(lines) and lines and all(
              line.get(name) == getattr(unit, name) for line in lines
              for name in ('problem', 'kind', 'seed'))
                  for lines in found.values()))


def _make_diversity_units() -> list[kept_units.Unit]:
  made = []
  for seed in range(_NUM_DIGITS_SEEDS.value):
    settings = diversity.DiversitySettings(seed=seed)
    made.append(kept_units.Unit(
        f'diversity_s{seed}', [settings, _FORMAT],
        functools.partial(diversity.run, settings), kept_units.are_lines,
        lambda lines: {'diversity': lines}))
  return made


def _contents(tables: kept_units.Tables) -> dict[str, bytes]:
  """Content by name of file."""
  ensembles, weights, seconds = (
      pd.DataFrame(tables[name]) for name in (*_TABLES, 'seconds'))
  lines = verdicts.judge(ensembles, weights)
  return {
      'ensembles.csv': csv_files.short_text(ensembles).encode(),
      'weights.csv': csv_files.short_text(weights).encode(),
      'seconds.csv': csv_files.short_text(seconds).encode(),
      'verdicts.csv': csv_files.table_text(
          verdict_tables.table(lines)).encode(),
      'verdicts.md': verdicts.text(lines).encode(),
      **drawing.pictures(ensembles, weights)}


def _diversity_contents(tables: kept_units.Tables) -> dict[str, bytes]:
  table = pd.DataFrame(tables['diversity'])
  return {'diversity.csv': csv_files.short_text(table).encode(),
          'diversity.png': diversity.picture(table)}


def main(_) -> None:
  if _DIVERSITY.value:
    cli.refuse((_PROBLEMS, data_flags.DATA_DIR, _KINDS, _NUM_SEEDS,
                _NUM_MEMBERS, _NUM_BATCHES),
               '--diversity is of digits, with settings of its own')
    made, report = _make_diversity_units(), _diversity_contents
  else:
    data_flags.data_dir()  # Checked whatever the problems are.
    made, report = _make_units(), _contents
  kept = kept_units.open_folder(_OUTPUT_DIR.value, _ONLY_KEPT.value)
  # Diversity is measured in float32.
  jax.config.update('jax_enable_x64', not _DIVERSITY.value)
  contents = report(kept_units.run_units(made, kept, _ONLY_KEPT.value))
  for name, content in contents.items():
    files.write_atomically(kept.parent / name, content)
  if 'verdicts.md' in contents:
    print(contents['verdicts.md'].decode())


if __name__ == '__main__':
  cli.run_main(main)
