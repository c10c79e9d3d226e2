"""What the figures of the paper share: their tables and their marks."""

from collections.abc import Sequence
import math
from typing import Any
from typing import NamedTuple

import numpy as np
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.report import comparison
from enn_ensembles.report import csv_files
from enn_ensembles.report import plots
from enn_ensembles.report import statistics
from enn_ensembles.scoring import table as score_table
from enn_ensembles.studies.layer_ensembles import settings

BLUE, ORANGE, GREEN, PINK, AMBER, SKY, _, GREY = plots.WONG
OPTIONS_COLOURS = {2: GREEN, 3: BLUE, 5: ORANGE, 6: PINK, 8: SKY, 10: AMBER}
OPTIONS_STYLES = {2: ':', 3: '-.', 5: '-', 6: '--', 8: '-', 10: '--'}
SELECTION_COLOURS = {'none': GREY, 'oracle': BLUE, 'val_nll': ORANGE}
SELECTION_STYLES = {'none': ':', 'oracle': '-', 'val_nll': '--'}
LEVEL_COLOURS = (BLUE, ORANGE, GREEN, PINK, GREY)
LEVEL_MARKS = 'osD^v'
SELECTION_NAMES = {'none': 'random order (selection none)',
                   'oracle': 'ranked, selection oracle',
                   'val_nll': 'ranked, selection val_nll'}

NUM_OPTIONS = (2, 3, 5, 6)
READ_OFF = 20  # The P that the paper reads off its Fig. 4.
# Points of a long curve that go into the table.
_TABLE_POINTS = 40
# One or two members have no spread to speak of: their KL is of the order of
# 1e5 and would leave no room for the rest.
HIGHEST_ON_AXIS = 30.


class Drawn(NamedTuple):
  """A figure.

  Attributes:
    picture: PNG.
    table: what is drawn, a row per point.
    notes: what is missing or left out, and what can be read off.
  """
  picture: bytes
  table: pd.DataFrame
  notes: tuple[str, ...]


def table_row(panel: str, compared: comparison.Comparison,
              setting: comparison.Setting, num_samples: int | None,
              scores: dict[str, np.ndarray], label: str = '',
              **extra: Any) -> dict[str, Any]:
  """A row of the table; scores are [C, S] by name."""
  row = {'panel': panel, 'label': label or setting.label,
         'agent': setting.agent, 'selection': setting.selection,
         'reference': compared.ranking['reference'],
         'settings': ' '.join(f'{k}={v:g}' if isinstance(v, float) else
                              f'{k}={v}' for k, v in setting.fields),
         'num_samples': num_samples}
  for score, values in scores.items():
    for name, found in ((f'{score}_mean', statistics.mean_interval(values)),
                        (f'{score}_geometric_mean',
                         statistics.geometric_interval(values))):
      stem = name.removesuffix('_mean')
      row[name] = float(found.value)
      row[f'{stem}_low'] = None if found.low is None else float(found.low)
      row[f'{stem}_high'] = None if found.high is None else float(found.high)
  shape = next(iter(scores.values())).shape
  return {**row, 'num_cells': shape[0], 'num_seeds': shape[1], **extra}


def all_members(panel: str, compared: comparison.Comparison,
                setting: comparison.Setting, scores: Sequence[str],
                **extra: Any) -> dict[str, Any]:
  """The table row of a setting as it was scored."""
  used = {compared.rows[setting][cell, seed]['num_samples_used']
          for cell in compared.cells for seed in compared.seeds}
  return table_row(
      panel, compared, setting, used.pop() if len(used) == 1 else None,
      {score: compared.values(setting, score) for score in scores},
      **extra)


def curve_rows(panel: str, compared: comparison.Comparison,
               setting: comparison.Setting, scores: Sequence[str],
               always: Sequence[int] = ()) -> list[dict[str, Any]]:
  """Table rows along a curve, thinned where it is long."""
  curves = {score: compared.curve(setting, score) for score in scores}
  length = curves[scores[0]].shape[-1]
  nums = {int(p) for p in np.geomspace(1, length, _TABLE_POINTS).round()}
  nums |= {p for p in always if p <= length}
  return [table_row(panel, compared, setting, num,
                    {score: curve[..., num - 1]
                     for score, curve in curves.items()})
          for num in sorted(nums)]


def draw_curve(axes, curve: np.ndarray, style: str = '-',
               **options: Any) -> np.ndarray:
  """Mean and interval of curve [C, S, J] against P; the means [J]."""
  found = statistics.mean_interval(curve)
  x = np.arange(1, curve.shape[-1] + 1)
  axes.plot(x, found.value, style, linewidth=1.7, **options)
  if found.low is not None:
    axes.fill_between(x, np.maximum(found.low, 1e-12), found.high, alpha=0.18,
                      linewidth=0, color=options['color'])
  return found.value


def draw_point(axes, x: float, values: np.ndarray, **options: Any) -> float:
  """Mean and interval of values [C, S]; the mean."""
  found = statistics.mean_interval(values)
  if found.low is not None and np.isfinite(found.value):
    axes.plot([x, x], [max(found.low, 1e-12), found.high], '-',
              color=options['color'], linewidth=1.6)
  axes.plot([x], [found.value], linestyle='none', **options)
  return float(found.value)


def scores_shown(score: str | None) -> tuple[str, tuple[str, ...]]:
  """(the score that is drawn, all that the table has).

  Args:
    score: None for the headline of the testbed; its two directions of the KL
      are in the table beside it.

  Raises:
    ValueError: there is no such score.
  """
  drawn = score or score_table.SCORE_SETS['nngp'].headline
  score_table.check_score(drawn, 'nngp')
  return drawn, tuple(dict.fromkeys([drawn, *settings.SCORES]))


def axis_name(score: str) -> str:
  """What an axis with means of a score is called."""
  entry = score_table.SCORES[score]
  return f'mean {entry.label}, {entry.unit}'


def y_limits(values: Sequence[float]) -> tuple[float, float]:
  """Limits of a log axis around what is worth its ink."""
  kept = [v for v in values if math.isfinite(v) and 0 < v <= HIGHEST_ON_AXIS]
  if not kept:
    return 0.1, HIGHEST_ON_AXIS
  return min(kept) / 1.25, min(HIGHEST_ON_AXIS, max(kept) * 1.25)


def mark(axes, value: float, y: float, low: float, high: float,
         marker: str = 'o', **options: Any) -> None:
  """A mean as a mark, or an arrow at the edge where it is off the axis."""
  if low <= value <= high:
    axes.plot([value], [y], marker, zorder=5, markeredgecolor='white',
              markeredgewidth=0.5, **options)
    return
  is_low = value < low
  axes.plot([0.012 if is_low else 0.988], [y], '<' if is_low else
            '>' if math.isfinite(value) or value > 0 else 'X', zorder=5,
            transform=axes.get_yaxis_transform(), **options)


def write(drawn: Drawn, name: str,
          output_dir: files.PathLike) -> dict[str, Any]:
  """Writes {name}.png and {name}.csv.

  Returns:
    File name -> path.

  Raises:
    ValueError: output_dir cannot be written to.
  """
  folder = files.make_folder(output_dir, 'output_dir')
  table = drawn.table.astype(object).where(drawn.table.notna(), None)
  contents = {f'{name}.png': drawn.picture,
              f'{name}.csv': csv_files.table_text(table).encode()}
  for file, content in contents.items():
    files.write_atomically(folder / file, content)
  return {file: folder / file for file in contents}
