"""Figure 4 of the Layer Ensembles paper, from rows."""

from collections.abc import Sequence

from matplotlib import lines as lines_lib
import numpy as np
import pandas as pd

from enn_ensembles.report import cells
from enn_ensembles.report import comparison
from enn_ensembles.report import plots
from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import drawing
from enn_ensembles.studies.layer_ensembles import settings


def _figure4_settings() -> tuple[list, list]:
  """(settings with curves, settings without) of Fig. 4."""
  ranked = [settings.layer_ensemble(k, selection=selection)
            for k in drawing.NUM_OPTIONS
            for selection in drawing.SELECTION_NAMES]
  ranked += [settings.deep_ensemble(30, selection=selection)
             for selection in drawing.SELECTION_NAMES]
  return ranked, [settings.deep_ensemble(10)]


def make_figure(rows: Sequence[comparison.Row], reference: str = 'bayes',
                allow_missing: bool = False,
                score: str | None = None) -> drawing.Drawn:
  """Fig. 4: KL by the number of samples P, in random and in ranked order.

  A panel per K, one for a deep ensemble of 30 ranked the same way, and one of
  the best P of K = 5 in each cell. Arguments and errors as in `figure2`.
  """
  score, scores = drawing.scores_shown(score)
  with_curve, plain = _figure4_settings()
  compared = comparison.compare(
      rows, [*with_curve, *plain], ranking=settings.ranking(reference),
      score=score, with_curve=with_curve, config='testbed_configs/figure4.py',
      allow_missing=allow_missing)
  table, notes = [], list(compared.notes)
  figure = plots.make_canvas(13., 8.2)
  axes = figure.subplots(2, 3)
  curves, shown = list(axes.flat)[:5], []
  lines = [s for s in (settings.deep_ensemble(10), settings.deep_ensemble(30))
           if s in compared.settings]
  for panel_axes, k in zip(curves, (*drawing.NUM_OPTIONS, None)):
    name = ('deep ensemble of 30' if k is None else
            f'layer ensemble, K = {k}, J = {k**3}')
    for selection in drawing.SELECTION_NAMES:
      setting = (settings.deep_ensemble(30, selection=selection) if k is None
                 else settings.layer_ensemble(k, selection=selection))
      if setting not in compared.settings:
        continue
      curve = compared.curve(setting, score)
      best = statistics.best_num_samples(curve)
      means = _draw_curve(panel_axes, curve, selection, best)
      shown += list(means[4:])
      table += drawing.curve_rows(name, compared, setting, scores,
                                  always=(best, drawing.READ_OFF, 36))
      notes.append(_note(f'{setting}: best P {best} of {len(means)}, mean '
                         f'{score}', means, best))
    for setting in lines:
      mean = float(np.mean(compared.values(setting, score)))
      num = setting.get('num_ensemble')
      panel_axes.axhline(mean, color='black', linewidth=1.,
                         linestyle='-' if num == 30 else (0, (1, 3)))
      shown.append(mean)
    panel_axes.axvline(drawing.READ_OFF, color='#bbbbbb', linewidth=0.8,
                       zorder=0)
    plots.style_axes(panel_axes, name[0].upper() + name[1:], 'P, samples',
                     drawing.axis_name(score))
    panel_axes.set_xscale('log')
    panel_axes.set_xlim(0.9, 260)
    plots.set_log(panel_axes.xaxis)
  for setting in lines:
    table.append(drawing.all_members('deep ensembles', compared, setting,
                                     scores))
  low, high = drawing.y_limits(shown)
  for panel_axes in curves:
    panel_axes.set_yscale('log')
    panel_axes.set_ylim(low, min(high, 20 * low))
    plots.set_log(panel_axes.yaxis)
  notes.append('figure 4 is cut at a mean of '
               f'{curves[0].get_ylim()[1]:.3g}; few samples lie above, their '
               'values are in the table.')
  _draw_best_by_cell(axes.flat[5], compared, scores, table)
  figure.legend(handles=_marks(), loc='outside lower center', ncols=7,
                fontsize=8.5, frameon=False)
  figure.suptitle(f'{drawing.axis_name(score)}, by number of samples; '
                  f'{compared.scope()}', fontsize=11)
  return drawing.Drawn(plots.to_png(figure), pd.DataFrame(table, dtype=object),
                       tuple(notes))


def _draw_curve(axes, curve: np.ndarray, selection: str,
                best: int) -> np.ndarray:
  """Draws a curve with a star at the best P; returns its means by P."""
  colour = drawing.SELECTION_COLOURS[selection]
  means = drawing.draw_curve(axes, curve, drawing.SELECTION_STYLES[selection],
                             color=colour)
  if selection != 'none':
    axes.plot([best], [means[best - 1]], marker='*', markersize=12,
              color=colour, markeredgecolor='white', markeredgewidth=0.7,
              zorder=5)
    # Above the panel: a number beside its star would cover another curve.
    axes.text(0.82 if selection == 'oracle' else 1., 1.02,
              f'\N{BLACK STAR} P = {best}', ha='right', va='bottom',
              fontsize=8.5, color=colour, transform=axes.transAxes)
  return means


def _note(start: str, means: np.ndarray, best: int) -> str:
  """What a curve's means are at the best P, at READ_OFF and with all."""
  note = f'{start} {text.short_number(float(means[best - 1]))}'
  if len(means) >= drawing.READ_OFF:
    note += (f'; P = {drawing.READ_OFF}: '
             f'{text.short_number(float(means[drawing.READ_OFF - 1]))}')
  return f'{note}; all: {text.short_number(float(means[-1]))}.'


def _marks() -> list[lines_lib.Line2D]:
  """The legend's entries."""
  marks = [lines_lib.Line2D([], [], color=drawing.SELECTION_COLOURS[s],
                            linestyle=drawing.SELECTION_STYLES[s],
                            linewidth=1.7, label=words)
           for s, words in drawing.SELECTION_NAMES.items()]
  marks += [
      lines_lib.Line2D([], [], color='black', linewidth=1.,
                       label='deep ensemble of 30, all'),
      lines_lib.Line2D([], [], color='black', linewidth=1.,
                       linestyle=(0, (1, 3)), label='of 10, all'),
      lines_lib.Line2D([], [], color=drawing.GREY, marker='*', markersize=10,
                       linewidth=0, label='best P'),
      lines_lib.Line2D([], [], color='#bbbbbb', linewidth=0.8,
                       label=f'P = {drawing.READ_OFF}')]
  return marks


def _draw_best_by_cell(axes, compared: comparison.Comparison,
                       scores: Sequence[str], table: list) -> None:
  """Best P of the ranked layer ensemble of 5 in every cell, with intervals."""
  for offset, selection in ((-0.15, 'oracle'), (0.15, 'val_nll')):
    setting = settings.layer_ensemble(5, selection=selection)
    if setting not in compared.settings:
      continue
    curve = compared.curve(setting, scores[0])
    for y, cell in enumerate(compared.cells):
      found = statistics.best_num_samples_interval(curve[[y]])
      table.append(drawing.table_row(
          'best P by cell', compared, setting, found.value,
          {score: compared.curve(setting, score)[[y]][..., found.value - 1]
           for score in scores},
          **dict(zip(compared.cell_names, cell)),
          best_num_samples=found.value, best_num_samples_low=found.low,
          best_num_samples_high=found.high))
      if found.low is not None:
        axes.plot([max(1., found.low), min(found.high, curve.shape[-1])],
                  [y + offset] * 2, '-', linewidth=1.4,
                  color=drawing.SELECTION_COLOURS[selection])
      axes.plot([found.value], [y + offset], 'o', markersize=4.5,
                color=drawing.SELECTION_COLOURS[selection])
  axes.axvline(36, color='black', linewidth=0.9, linestyle=(0, (4, 3)))
  plots.style_axes(axes, 'Best P of K = 5 by cell (dashed: 36, the paper)',
                   "P, dot: best on the mean; bar: 95 % of each seed's best")
  axes.set_xscale('log')
  axes.set_xlim(0.9, 150)
  plots.set_log(axes.xaxis)
  axes.set_ylim(len(compared.cells) - 0.5, -0.5)
  axes.set_yticks(range(len(compared.cells)), [
      ', '.join(map(cells.level_text, cell)) for cell in compared.cells],
                  fontsize=7.5)
  axes.set_ylabel(', '.join(compared.cell_names), fontsize=9)
