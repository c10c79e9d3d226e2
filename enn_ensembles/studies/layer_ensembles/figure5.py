"""Figure 5 of the Layer Ensembles paper, from rows."""

from collections.abc import Sequence
import math

from matplotlib import lines as lines_lib
import numpy as np
import pandas as pd

from enn_ensembles.report import comparison
from enn_ensembles.report import plots
from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import drawing
from enn_ensembles.studies.layer_ensembles import settings

# Cell fields with a panel each.
_GROUPS = ('noise_std', 'input_dim')

FIGURE5_SETTINGS = (
    *(settings.layer_ensemble(5, selection=selection)
      for selection in ('oracle', 'val_nll', 'none')),
    *settings.COMPETITORS,
    comparison.make_setting('deep_sub_ensemble', num_ensemble=10,
                            label='deep sub-ensemble of 10'),
    comparison.make_setting('batch_ensemble', num_ensemble=10,
                            label='BatchEnsemble of 10'),
    comparison.make_setting('map', label='one network (map)'),
    comparison.make_setting('prior_only', label='prior only'),
    comparison.make_setting('exact_posterior', label='exact posterior',
                            analytic=True),
    comparison.make_setting('exact_posterior', analytic=False,
                            label='exact posterior, sampled'),
)


def make_figure(rows: Sequence[comparison.Row], reference: str = 'bayes',
                allow_missing: bool = False,
                score: str | None = None) -> drawing.Drawn:
  """Fig. 5: all agents at their papers' settings: mean KL and its spread.

  Left: per agent a box of the KL over cells and seeds, and the mean with its
  interval. Right: the mean by noise level and by input dimension. The ranked
  layer ensemble stands there with the P that validation chose on each problem,
  and with the one P whose mean validation score is best. Arguments and errors
  as in `figure2`.
  """
  score, names = drawing.scores_shown(score)
  ranked = [s for s in FIGURE5_SETTINGS if s.selection != 'none']
  compared = comparison.compare(
      rows, FIGURE5_SETTINGS, ranking=settings.ranking(reference), score=score,
      with_curve=ranked, config='testbed_configs/figure5.py',
      allow_missing=allow_missing)
  entries = []  # (label, setting, number of samples, scores)
  for setting in compared.settings:
    label = str(setting).replace(', selection', ',')
    scores = {s: compared.values(setting, s) for s in names}
    if setting in ranked:
      entries.append((f'{label}, P by validation', setting, None, scores))
      curves = {s: compared.curve(setting, s) for s in names}
      # One P for all problems, chosen as the other is: never on test scores.
      best = statistics.best_num_samples(compared.curve(setting, 'val_score'))
      entries.append((
          f'{label}, P = {best}', setting, best,
          {s: values[..., best - 1] for s, values in curves.items()}))
    else:
      if setting.agent == 'layer_ensemble':
        label += ', all members'
      entries.append((label, setting, None, scores))

  def order(entry):
    mean = float(np.mean(entry[3][score]))
    return (not math.isfinite(mean), mean if math.isfinite(mean) else 0.,
            entry[0])
  entries.sort(key=order)

  table = []
  for label, setting, num, scores in entries:
    for group in (None, *_GROUPS):
      for level in [None] if group is None else _levels(compared, group):
        here = (slice(None) if group is None else
                compared.column(group) == level)
        inside = {s: values[here] for s, values in scores.items()}
        with np.errstate(invalid='ignore'):
          spread = {f'{s}_std': float(np.std(values))
                    for s, values in inside.items()}
          spread.update({
              f'{score}_{name}': float(np.quantile(inside[score], q))
              for name, q in (('min', 0.), ('quartile_1', 0.25),
                              ('median', 0.5), ('quartile_3', 0.75),
                              ('max', 1.))})
        table.append(drawing.table_row(
            'all cells' if group is None else f'by {group}', compared, setting,
            num, inside, label=label, **{
                name: level if name == group else None for name in _GROUPS},
            **spread))
  notes = list(compared.notes)
  if any(row['num_samples'] for row in table):
    notes.append('figure 5: the P of "P = ..." has the best mean validation '
                 'score; "P by validation" is chosen problem by problem.')
  return drawing.Drawn(_draw(compared, entries, score),
                       pd.DataFrame(table, dtype=object), tuple(notes))


def _levels(compared: comparison.Comparison, name: str) -> list[float]:
  """The values of a cell field, sorted."""
  return np.unique(compared.column(name)).tolist()


def _draw(compared: comparison.Comparison, entries: list, score: str) -> bytes:
  """The picture of `make_figure`."""
  figure = plots.make_canvas(14., 1.9 + 0.33 * len(entries))
  left, *rights = figure.subplots(1, 3, sharey=True,
                                  gridspec_kw={'width_ratios': [2.2, 1, 1]})
  kls = [scores[score] for *_, scores in entries]
  # The exact posterior is an audit: its 0 and 0.001 need no room.
  on_axis = np.concatenate([[1.], *(
      kl.ravel() for (_, setting, _, _), kl in zip(entries, kls)
      if setting.agent != 'exact_posterior')])
  on_axis = on_axis[(on_axis > 0) & (on_axis <= drawing.HIGHEST_ON_AXIS)]
  low = on_axis.min() / 1.3
  high = min(drawing.HIGHEST_ON_AXIS, on_axis.max() * 1.3)
  for y, ((_, setting, _, _), kl) in enumerate(zip(entries, kls)):
    colour = drawing.SELECTION_COLOURS.get(setting.selection)
    if setting.selection == 'none':
      colour = (drawing.GREEN if setting.agent == 'layer_ensemble' else
                drawing.GREY)
    if y % 2:
      for axes in (left, *rights):
        axes.axhspan(y - 0.5, y + 0.5, color='#f4f4f4', zorder=0, linewidth=0)
    _draw_spread(left, y, kl, low, high, colour)
    for axes, group in zip(rights, _GROUPS):
      levels = _levels(compared, group)
      for i, level in enumerate(levels):
        drawing.mark(axes, float(np.mean(kl[compared.column(group) == level])),
                     y + 0.24 * (i - (len(levels) - 1) / 2), low, high,
                     marker=drawing.LEVEL_MARKS[i % 5],
                     color=drawing.LEVEL_COLOURS[i % 5], markersize=6,
                     alpha=0.9)
  for axes, group in zip(rights, _GROUPS):
    levels = _levels(compared, group)
    axes.legend(handles=[
        lines_lib.Line2D([], [], linewidth=0, marker=drawing.LEVEL_MARKS[i % 5],
                         color=drawing.LEVEL_COLOURS[i % 5],
                         label=f'{group} = {level:g}')
        for i, level in enumerate(levels)], fontsize=8, frameon=False,
                ncols=2, loc='upper center', bbox_to_anchor=(0.5, -0.09),
                handletextpad=0.2, columnspacing=0.9)
  name = drawing.axis_name(score)
  plots.style_axes(left, 'All cells: mean (black, 95 % interval), box and '
                   'range over cells and seeds', name.removeprefix('mean '))
  for axes, group in zip(rights, _GROUPS):
    plots.style_axes(axes, f'Mean by {group}', name)
  for axes in (left, *rights):
    axes.set_xscale('log')
    axes.set_xlim(low, high)
    plots.set_log(axes.xaxis)
    axes.grid(False, axis='y')
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
  left.set_ylim(len(entries) - 0.5, -0.5)
  left.set_yticks(range(len(entries)), [label for label, *_ in entries],
                  fontsize=9)
  figure.suptitle(f'All agents; {compared.scope()}. '
                  'Arrows: off the axis', fontsize=11)
  return plots.to_png(figure)


def _draw_spread(axes, y: int, kl: np.ndarray, low: float, high: float,
                 colour: str | None) -> None:
  """An agent's line: box and range of kl, its mean and 95 % interval.

  Args:
    axes: where.
    y: the line's place.
    kl: scores over cells and seeds, [C, S].
    low: lower end of the axis.
    high: upper end.
    colour: of box and range.
  """
  values = kl[np.isfinite(kl)]
  if values.size and low <= np.max(values) and np.min(values) <= high:
    q0, q1, q2, q3, q4 = np.clip(np.quantile(values, [0, .25, .5, .75, 1]),
                                 low, high)
    axes.plot([q0, q4], [y, y], '-', color=colour, linewidth=0.9, zorder=2)
    axes.barh(y, q3 - q1, left=q1, height=0.5, color=colour, alpha=0.28,
              zorder=2)
    axes.plot([q2, q2], [y - 0.25, y + 0.25], color=colour, linewidth=1.4,
              zorder=3)
  found = statistics.mean_interval(kl)
  if found.is_known and low <= found.value <= high:
    ends = np.clip([found.low, found.high], low, high)
    axes.plot(ends, [y, y], '-', color='black', linewidth=2.4, zorder=4,
              solid_capstyle='butt')
  drawing.mark(axes, float(found.value), y, low, high, color='black',
               markersize=6)
  axes.text(1.015, y, text.short_number(float(found.value)),
            transform=axes.get_yaxis_transform(), va='center', fontsize=8.5)
