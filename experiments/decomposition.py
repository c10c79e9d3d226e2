"""Which uncertainty is whose: aleatoric, epistemic, votes, bags, experts.

python -m experiments.decomposition --output_dir=OUT

Trains small agents on digits (scikit-learn's, no file is needed) and on cells
of the testbed, and writes tables, pictures and verdicts.md. What is trained is
kept in OUT/units: the same command goes on where it was stopped.
--datasets=digits,mnist needs --data_dir. docs/study_decomposition.md explains
the parts.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any

from absl import flags
import jax
import pandas as pd

from enn_ensembles import checks
from enn_ensembles.machine import files
from enn_ensembles.problems import image_data
from enn_ensembles.problems import image_files
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.report import csv_files
from enn_ensembles.studies import kept_units
from enn_ensembles.studies import verdict_tables
from enn_ensembles.studies.decomposition import drawing
from enn_ensembles.studies.decomposition import images
from enn_ensembles.studies.decomposition import regression
from enn_ensembles.studies.decomposition import verdicts
from experiments import cli
from experiments import data_flags

flags.adopt_module_key_flags(data_flags)

_MOST = 1_000_000

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the results go; made if missing.', required=True)
_PARTS = flags.DEFINE_list(
    'parts', ['split', 'response', 'grid', 'experts', 'robustness'],
    'What is measured.')
_DATASETS = flags.DEFINE_list('datasets', ['digits'], 'Which images.')
_NUM_SEEDS = flags.DEFINE_integer('num_seeds', 3, 'Seeds.', lower_bound=1,
                                  upper_bound=_MOST)
_NUM_BATCHES = flags.DEFINE_integer(
    'num_batches', None, 'Steps of training. Default: 1000; 500 of data sets '
    'other than digits.', lower_bound=1, upper_bound=_MOST)
_NUM_MEMBERS = flags.DEFINE_integer(
    'num_members', None, 'Members of ensembles. Default: 10; 5 on data sets '
    'other than digits.', lower_bound=2, upper_bound=_MOST)
_IMAGE_SIZES = flags.DEFINE_list(
    'image_sizes', None, 'Numbers of training images. Default: 100,300,1000 of '
    'digits, 500,5000 of other data sets.')
_NUM_TEST = flags.DEFINE_integer(
    'num_test', 1000, 'Test images at most.', lower_bound=1, upper_bound=_MOST)
_DATA_RATIOS = flags.DEFINE_list(
    'data_ratios', ['10', '100'], 'Testbed cells of input dimension 10; the '
    'part response has the first.')

_ONLY_KEPT = flags.DEFINE_bool(
    'only_kept', False, 'Train nothing; report what OUT/units holds.')

# What `OUT/units` holds changes with this.
_FORMAT = 3

_ON_IMAGES = {'grid': images.run_grid, 'experts': images.run_experts,
              'robustness': images.run_robustness}
_ON_TESTBED = {'split': regression.run_split,
               'response': regression.run_response}
# What no flag sets; the second is of data sets that are larger than digits.
_DEFAULTS = {'num_members': 10, 'num_batches': 1000}
_LARGER = {'sizes': (500, 5000), 'num_members': 5, 'num_batches': 500,
           'agents': ('ensemble', 'bagging', 'dropout')}


def _make_units() -> list[kept_units.Unit]:
  """Everything that is asked for."""
  given: dict[str, Any] = {'seeds': tuple(range(_NUM_SEEDS.value))}
  for flag in (_NUM_BATCHES, _NUM_MEMBERS):
    if flag.value is not None:
      given[flag.name] = flag.value
  data_dir = data_flags.data_dir()
  sizes = cli.numbers_if_given(_IMAGE_SIZES, int, checks.check_size)
  on_images = {**given, 'num_test': _NUM_TEST.value}
  if sizes is not None:
    on_images['sizes'] = tuple(sorted(sizes))
  made = []
  for part in cli.names(_PARTS, (*_ON_TESTBED, *_ON_IMAGES)):
    if part in _ON_TESTBED:
      ratios = cli.numbers(_DATA_RATIOS, float,
                           nngp.CONFIG_NAMES['DATA_RATIO'].check)
      levels = (0.1, 1.)
      if part == 'response':
        ratios, levels = ratios[:1], (0.01, 0.1, 1.)
      for ratio in ratios:
        settings = regression.TestbedSettings(
            data_ratio=ratio, noise_stds=levels, **{**_DEFAULTS, **given})
        made.append(_make_unit(
            part, f'T{settings.num_train}', settings,
            functools.partial(_ON_TESTBED[part], settings)))
    else:
      for dataset in cli.names(_DATASETS):
        settings = images.ImageSettings(dataset, **{
            **(_DEFAULTS if dataset == 'digits' else _LARGER), **on_images})
        data = [image_files.read_images(dataset, split, data_dir)
                for split in image_data.SPLITS]
        settings.check(data[0])
        made.append(_make_unit(
            part, dataset.replace(':', '_'), settings,
            functools.partial(_ON_IMAGES[part], settings, data_dir),
            [one.sha256 for one in data]))
  return made


def _make_unit(part: str, data: str, settings: Any,
               run: Callable[[], list[Any]],
               checksums: Sequence[str] = ()) -> kept_units.Unit:
  """A part on one data set: its lines, and what they cost.

  With checksums of the data, what is kept is not taken for other data.
  """
  def run_unit() -> dict[str, Any]:
    lines, costs = kept_units.run_counted(f'{part} {data}', run)
    return {**costs, 'lines': lines}

  def tables(found: dict[str, Any]) -> kept_units.Tables:
    return {part: found['lines'], 'seconds': [{
        'part': part, 'data': data,
        'cpu_seconds': round(found['cpu_seconds'], 1),
        'peak_memory_mb': found['peak_memory_mb']}]}

  return kept_units.Unit(f'{part}_{data}',
                         [settings, _FORMAT, *checksums], run_unit,
                         _is_unit, tables)


def _is_unit(found: Any) -> bool:
  return (isinstance(found, dict) and set(found) == {
      'cpu_seconds', 'peak_memory_mb', 'lines'}
          and isinstance(found['cpu_seconds'], float)
          and isinstance(found['peak_memory_mb'], (float, type(None)))
          and kept_units.are_lines(found['lines']))


def main(_) -> None:
  units = _make_units()
  kept = kept_units.open_folder(_OUTPUT_DIR.value, _ONLY_KEPT.value)
  jax.config.update('jax_enable_x64', True)
  found = kept_units.run_units(units, kept, _ONLY_KEPT.value)
  seconds = found.pop('seconds')
  tables = {part: pd.DataFrame(lines) for part, lines in found.items()}
  lines = verdicts.judge(tables)
  if 'grid' in tables:
    tables['disentanglement'] = verdicts.disentanglement_errors(tables['grid'])
  tables['seconds'] = pd.DataFrame(seconds)
  contents = {
      **{f'{name}.csv': csv_files.short_text(table).encode()
         for name, table in {**tables, 'verdicts': verdict_tables.table(
             lines)}.items()},
      'verdicts.md': verdicts.text(lines).encode(), **drawing.pictures(tables)}
  for name, content in contents.items():
    files.write_atomically(kept.parent / name, content)
  print(verdicts.text(lines))


if __name__ == '__main__':
  cli.run_main(main)
