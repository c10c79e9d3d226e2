"""Pictures of the counts: reliability, information, similarity of members."""

from collections.abc import Iterable
from collections.abc import Mapping
import math
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import plots
from enn_ensembles.scoring import prediction_counts

_NUM_COLUMNS = 4
_NUM_MATRICES = 8  # Beside each other.
_FEW_MEMBERS = 4  # So many have their numbers written into a matrix.
_SET_NAMES = {'test': 'test images', 'shift': 'under shift'}
_MEASURES = {'disagreement': 'disagreement, share of test images',
             'jensen_shannon': 'Jensen-Shannon divergence, nats',
             'weight_cosine': 'cosine of weights'}


def _panels(labels: list[str], height: float) -> tuple[Any, dict[str, Any]]:
  """A panel per setting, its label above it."""
  num_columns = min(_NUM_COLUMNS, len(labels))
  num_rows = math.ceil(len(labels) / num_columns)
  figure = plots.make_canvas(3.3 * num_columns, 0.5 + height * num_rows)
  axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True,
                         squeeze=False).ravel()
  for panel in axes[len(labels):]:
    panel.set_visible(False)
  # The lowest panel of a column says its numbers, whatever its row.
  for panel in axes[max(len(labels) - num_columns, 0):len(labels)]:
    panel.tick_params(labelbottom=True)
  return figure, dict(zip(labels, axes))


def _finish(figure: Any, panels: Mapping[str, Any]) -> bytes:
  """One legend for all panels, then the picture."""
  marks: dict[str, Any] = {}
  for panel in panels.values():
    for handle, label in zip(*panel.get_legend_handles_labels()):
      marks.setdefault(label, handle)
  figure.legend(list(marks.values()), list(marks), fontsize=8,
                ncols=len(marks), frameon=False, loc='outside lower center')
  return plots.to_png(figure)


def _set_colours(names: Iterable[str]) -> dict[str, str]:
  """Colours of sets: the test set and shifts first."""
  order = [*_SET_NAMES, *sorted(set(names) - set(_SET_NAMES))]
  return dict(zip((name for name in order if name in set(names)), plots.WONG))


def draw_reliability(table: pd.DataFrame) -> bytes:
  """Accuracy against confidence, of bins with 20 points or more."""
  figure, panels = _panels(list(dict.fromkeys(table['setting'])), 2.6)
  colours = _set_colours(table['set'])
  for label, panel in panels.items():
    plots.style_axes(panel, plots.wrap_label(label, num_lines=3),
                     'confidence', 'accuracy')
    panel.plot([0., 1.], [0., 1.], color='#888888', linewidth=0.8,
               linestyle=':')
    for name, colour in colours.items():
      own = table[(table['setting'] == label) & (table['set'] == name)
                  & (table['num_points'] >= 20)]
      panel.plot(list(own['confidence']), list(own['accuracy']), 'o-',
                 color=colour, markersize=3, linewidth=1.2,
                 label=_SET_NAMES.get(name, name))
    panel.set_xlim(0., 1.)
    panel.set_ylim(0., 1.)
  return _finish(figure, panels)


def draw_information(table: pd.DataFrame) -> bytes:
  """Histograms of the mutual information, on a logarithmic axis."""
  edges = prediction_counts.MI_EDGES
  ratio = edges[1] / edges[0]
  places = np.array([edges[0] / ratio, *edges, edges[-1] * ratio])
  figure, panels = _panels(list(dict.fromkeys(table['setting'])), 2.3)
  colours = _set_colours(table['set'])
  for label, panel in panels.items():
    plots.style_axes(panel, plots.wrap_label(label, num_lines=3), 'MI, nats',
                     'share of points')
    for name, colour in colours.items():
      own = table[(table['setting'] == label) & (table['set'] == name)]
      if len(own):
        panel.stairs(list(own['share']), places, color=colour, linewidth=1.3,
                     label=_SET_NAMES.get(name, name))
    panel.set_xscale('log')
    # Panels share the axis: its end is that of all, not of the first.
    panel.set_ylim(0., 1.05 * table['share'].max())
  return _finish(figure, panels)


def draw_similarity(table: pd.DataFrame) -> bytes:
  """Matrices of members: a column per setting, and a row per measure.

  Many settings are shown in several blocks of such rows.
  """
  labels = list(dict.fromkeys(table['setting']))
  measures = [name for name in _MEASURES if name in set(table['measure'])]
  num_columns = min(_NUM_MATRICES, len(labels))
  blocks = [labels[i:i + num_columns]
            for i in range(0, len(labels), num_columns)]
  rows = [(block, measure) for block in blocks for measure in measures]
  figure = plots.make_canvas(1.2 + 1.7 * num_columns, 0.6 + 2. * len(rows))
  axes = figure.subplots(len(rows), num_columns, squeeze=False)
  for row, (block, measure) in zip(axes, rows):
    own = table[table['measure'] == measure]
    highest = 1. if measure == 'weight_cosine' else max(own['mean'])
    shown = None
    for panel in row[len(block):]:
      panel.set_axis_off()
    for panel, label in zip(row, block):
      values = own[own['setting'] == label]
      panel.set_xticks([])
      panel.set_yticks([])
      if measure == measures[0]:
        panel.set_title(plots.wrap_label(label, 20, 3), fontsize=8)
      if not len(values):  # Its index picks no member with weights.
        panel.set_axis_off()
        continue
      size = int(max(values['first']))
      matrix = np.array(list(values['mean']), float).reshape(size, size)
      shown = panel.imshow(matrix, vmin=0., vmax=highest, cmap='viridis')
      if size <= _FEW_MEMBERS:
        for (i, j), value in np.ndenumerate(matrix):
          text = f'{value:.3f}'.replace('0.', '.', 1)
          panel.text(j, i, '1' if text == '1.000' else text,
                     ha='center', va='center', fontsize=6, color=(
                         'black' if value > 0.6 * highest else 'white'))
    if shown is not None:
      bar = figure.colorbar(shown, ax=list(row), shrink=0.8)
      bar.set_label(_MEASURES[measure], fontsize=8)
      bar.ax.tick_params(labelsize=7)
  return plots.to_png(figure)


_PICTURES = {'reliability': draw_reliability, 'information': draw_information,
             'similarity': draw_similarity}


def draw_all(tables: Mapping[str, pd.DataFrame]
             ) -> Iterable[tuple[str, bytes]]:
  """(name of a file, PNG) of every picture of every data set.

  Args:
    tables: of `counted.make_tables`.
  """
  for name, table in tables.items():
    for data_set in dict.fromkeys(table['data_set']):
      yield (f'{plots.file_stem(data_set)}_{name}.png',
             _PICTURES[name](table[table['data_set'] == data_set]))
