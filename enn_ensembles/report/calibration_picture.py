"""Histograms of the probability integral transform, a small panel per agent."""

import math
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import calibration
from enn_ensembles.report import plots
from enn_ensembles.report import statistics
from enn_ensembles.report import text

_NUM_COLUMNS = 4
# Higher bins are cut, and their height is written at the edge.
_HIGHEST = 4.
MOST_PANELS = 40  # matplotlib draws no picture of any height.


def draw(found: calibration.Calibration) -> bytes:
  """The histograms as PNG, as densities: 1 is uniform.

  Bars are the mean over all cells, with 95 % intervals over seeds; thin lines
  are parts of the cells; a dashed line is what as many exact draws have on
  average. Agent settings without counts are named below.
  """
  table = found.histograms
  labels = list(dict.fromkeys(table['label']))
  without = [line['label'] for line in found.tests.to_dict('records')
             if not line['num_seeds']]
  short, shared = text.split_labels([*labels, *without])
  names = dict(zip([*labels, *without], short))
  notes = [f'all with {", ".join(shared)}'] if shared else []
  if len(labels) > MOST_PANELS:
    notes.append(f'{len(labels) - MOST_PANELS} more are in the tables')
    labels = labels[:MOST_PANELS]
  if without:
    notes.append('without counts: ' + '; '.join(
        names[label] for label in without))
  num_columns = min(_NUM_COLUMNS, len(labels))
  num_rows = math.ceil(len(labels) / num_columns)
  figure = plots.make_canvas(max(2.4 * num_columns, 6.),
                             1.1 + 2.1 * num_rows)
  axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True,
                         squeeze=False).ravel()
  for panel in axes[len(labels):]:
    panel.set_visible(False)
  parts = [name for name in dict.fromkeys(table['cells'])
           if name != calibration.ALL_CELLS]
  colours = dict(zip(parts, plots.WONG))
  tests = found.tests[found.tests['cells'] == calibration.ALL_CELLS
                      ].set_index('label')
  for i, (panel, label) in enumerate(zip(axes, labels)):
    own = table[table['label'] == label]
    _draw_panel(panel, own, colours)
    plots.style_axes(
        panel, '', 'transform of f' if i >= len(labels) - num_columns else '',
        'density' if i % num_columns == 0 else '')
    panel.set_title(plots.wrap_label(names[label], 30), fontsize=8, loc='left')
    panel.tick_params(labelsize=7.5,
                      labelbottom=i >= len(labels) - num_columns)
    panel.text(0.5, 0.97, _test_text(tests.loc[label]), fontsize=7, ha='center',
               va='top', transform=panel.transAxes, color='#333333')
  axes[0].set_xlim(0., 1.)
  axes[0].set_ylim(0., _HIGHEST)
  marks: dict[str, Any] = {}
  for handle, label in zip(*axes[0].get_legend_handles_labels()):
    marks.setdefault(label, handle)
  if notes:
    figure.suptitle(plots.wrap_label('; '.join(notes), 110, 3), fontsize=8,
                    x=0.01, ha='left')
  figure.legend(list(marks.values()), list(marks), fontsize=8, frameon=False,
                ncols=min(len(marks), 3), loc='outside lower center')
  return plots.to_png(figure)


def _draw_panel(panel: Any, table: pd.DataFrame,
                colours: dict[str, str]) -> None:
  """Bars, lines and what is cut off, of one agent setting."""
  panel.axhline(1., color='#888888', linewidth=0.8, linestyle=':',
                label='uniform')
  for name in [calibration.ALL_CELLS, *colours]:
    own = table[table['cells'] == name]
    if not len(own):
      continue
    edges = np.array([*own['from'], np.asarray(own['to'])[-1]], float)
    scale = len(own)
    heights = scale * np.array(own['share'], float)
    if name != calibration.ALL_CELLS:
      panel.stairs(heights, edges, color=colours[name], linewidth=0.9,
                   label=name)
      continue
    panel.stairs(heights, edges, fill=True, color='#c9d6e2', label='all cells')
    half = scale * np.array(own['standard_error'], float)
    if not np.isnan(half).any():
      half *= statistics.student_t(int(np.asarray(own['num_seeds'])[0]) - 1)
      middle = (edges[1:] + edges[:-1]) / 2
      panel.errorbar(middle, heights, half, fmt='none', ecolor='#6f8296',
                     elinewidth=0.8)
    panel.stairs(scale * np.array(own['share_of_exact_draws'], float), edges,
                 color='black', linewidth=0.9, linestyle='--',
                 label='as many exact draws')
    for i, place, alignment in ((0, edges[1], 'left'),
                                (-1, edges[-2], 'right')):
      if heights[i] > _HIGHEST:
        panel.text(place, 0.75 * _HIGHEST, f' {heights[i]:.1f} ', fontsize=7,
                   ha=alignment, va='bottom')


def _test_text(test: pd.Series) -> str:
  """Curvature and p value of an agent setting."""
  if test['p_holm'] is None:
    return f'curvature {test["curvature"]:.2f}'
  p_value = test['p_holm']
  shown = 'p < 0.001' if p_value < 0.001 else f'p = {p_value:.2g}'
  return f'curvature {test["curvature"]:.2f}, {shown}'
