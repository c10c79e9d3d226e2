"""Figure 2 of the Layer Ensembles paper, from rows."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math

import pandas as pd

from enn_ensembles.report import comparison
from enn_ensembles.report import plots
from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import drawing
from enn_ensembles.studies.layer_ensembles import settings

_CONFIG = 'testbed_configs/figure2.py'
_FIGURE2_LAYERED = {1.: (*drawing.NUM_OPTIONS, 8, 10),
                    0.: drawing.NUM_OPTIONS}
_FIGURE2_DEEP = {1.: (2, 3, 5, 10, 30), 0.: (3, 10, 30)}
_SUBSETS = ((3, 2), (3, 5), (5, 2), (5, 11))  # (K, num_index_samples)


def first_option(num_options: int) -> comparison.Setting:
  """A layer ensemble whose target noise depends on the first option only."""
  setting = settings.layer_ensemble(num_options, noise_by='first_option')
  return dataclasses.replace(
      setting, label=f'K = {num_options}, noise by first option')


def index_subset(num_options: int, num: int) -> comparison.Setting:
  """A layer ensemble trained on a random subset per step."""
  setting = settings.layer_ensemble(num_options, num_index_samples=num)
  return dataclasses.replace(
      setting, label=f'K = {num_options}, {num} combinations per step')


def make_figure(rows: Sequence[comparison.Row], reference: str = 'bayes',
                allow_missing: bool = False,
                score: str | None = None) -> drawing.Drawn:
  """Fig. 2: KL by random samples and options, beside deep ensembles.

  Upper panels: the mean KL of the first P members of a random order, with and
  without priors. Lower panels: the two rules of target noise, and training on
  a random subset of the combinations per step.

  Args:
    rows: as `columns.read_results` gives them.
    reference: reference of the scores.
    allow_missing: draw what is there, and note what is not.
    score: what to draw; None for the headline. Curves must have it.

  Raises:
    ValueError: rows that are needed are missing, or contradict each other.
  """
  score, scores = drawing.scores_shown(score)
  name_of_axis = drawing.axis_name(score)
  table, notes, drawn = [], [], []
  figure = plots.make_canvas(11., 8.6)
  axes = figure.subplots(2, 2, gridspec_kw={'height_ratios': [3, 2]})
  for panel_axes, prior_scale, name in zip(
      axes[0], (1., 0.), ('with priors', 'without priors')):
    layered = [settings.layer_ensemble(k, prior_scale)
               for k in _FIGURE2_LAYERED[prior_scale]]
    deep = [settings.deep_ensemble(k, prior_scale)
            for k in _FIGURE2_DEEP[prior_scale]]
    compared = comparison.compare(
        rows, [*layered, *deep], ranking=settings.ranking(reference),
        score=score, with_curve=layered, config=_CONFIG,
        allow_missing=allow_missing)
    notes += [f'{name}: {note}' for note in compared.notes]
    for setting in layered:
      if setting in compared.settings:
        k = setting.get('num_options')
        drawn += list(drawing.draw_curve(
            panel_axes, compared.curve(setting, score),
            drawing.OPTIONS_STYLES[k], color=drawing.OPTIONS_COLOURS[k],
            label=f'layer ensemble, K = {k}')[3:])
        table += drawing.curve_rows(name, compared, setting, scores)
        table.append(drawing.all_members(f'{name}, all members', compared,
                                         setting, scores))
    present = [s for s in deep if s in compared.settings]
    members = [s.get('num_ensemble') for s in present]
    means = [drawing.draw_point(
        panel_axes, k, compared.values(s, score), color='black', marker='s',
        markersize=5, label='deep ensemble, K = P' if i == 0 else None)
             for i, (k, s) in enumerate(zip(members, present))]
    panel_axes.plot(members, means, '-', color='black', linewidth=0.8,
                    alpha=0.6)
    drawn += [m for k, m in zip(members, means) if k > 2]
    table += [drawing.all_members(name, compared, s, scores) for s in present]
    plots.style_axes(
        panel_axes, f'{name[0].upper()}{name[1:]}\n{compared.scope()}',
        'P, members of a random order', name_of_axis)
    panel_axes.set_xscale('log')
    panel_axes.set_xlim(0.9, 1200)
    plots.set_log(panel_axes.xaxis)
    panel_axes.legend(fontsize=8.5, frameon=False)
  for panel_axes in axes[0]:
    panel_axes.set_yscale('log')
    panel_axes.set_ylim(*drawing.y_limits(drawn))
    plots.set_log(panel_axes.yaxis)
  notes.append('figure 2 is cut at a mean of '
               f'{axes[0, 0].get_ylim()[1]:.3g}; one and two members lie '
               'above, their values are in the table.')

  def compare(wanted):
    return comparison.compare(
        rows, wanted, ranking=settings.ranking(reference), score=score,
        config=_CONFIG, allow_missing=allow_missing)

  pairs = [(f'K = {k}', settings.layer_ensemble(k), 'by combination',
            [(first_option(k), 'by first option')]) for k in (2, 3)]
  _draw_groups(axes[1, 0], 'Target noise', pairs, compare, scores, table, notes)
  pairs = [(f'K = {k}', settings.layer_ensemble(k), f'all {k**3}',
            [(index_subset(k, num), f'{num} random')
             for options, num in _SUBSETS if options == k]) for k in (3, 5)]
  _draw_groups(axes[1, 1], 'Combinations trained per step', pairs, compare,
               scores, table, notes)
  return drawing.Drawn(plots.to_png(figure), pd.DataFrame(table, dtype=object),
                       tuple(notes))


def _draw_groups(axes, title: str, groups, compare: Callable[
    [Sequence[comparison.Setting]], comparison.Comparison],
                 scores: Sequence[str], table: list, notes: list) -> None:
  """A panel of points: (name, usual setting, its name, variants) per group."""
  score = scores[0]
  ticks, low, high = [], math.inf, 0.
  x = 0.
  scopes = []
  for name, usual, usual_name, variants in groups:
    compared = compare([usual, *(setting for setting, _ in variants)])
    panel = f'{title.lower()}, {name}'
    notes += [f'{panel}: {note}' for note in compared.notes]
    scopes.append(compared.scope())
    for setting, words in [(usual, usual_name), *variants]:
      if setting not in compared.settings:
        continue
      values = compared.values(setting, score)
      extra = {}
      if setting != usual and usual in compared.settings:
        ratio = statistics.ratio_interval(
            values, compared.values(usual, score))
        extra = {'ratio_to_usual': ratio.value, 'ratio_low': ratio.low,
                 'ratio_high': ratio.high}
        interval = '' if ratio.low is None else (
            f' [{ratio.low:.3g}, {ratio.high:.3g}]')
        notes.append(f'{panel}: {score} {words} / {usual_name} = '
                     f'{ratio.value:.3g}{interval}.')
      table.append(drawing.all_members(panel, compared, setting, scores,
                                       **extra))
      is_usual = setting == usual
      mean = drawing.draw_point(
          axes, x, values, color=drawing.BLUE if is_usual else drawing.ORANGE,
          marker='o' if is_usual else 'D', markersize=6)
      axes.annotate(text.short_number(mean), (x, mean), (9, 0),
                    textcoords='offset points', va='center', fontsize=8.5)
      low, high = min(low, mean), max(high, mean)
      ticks.append((x, f'{name}\n{words}'))
      x += 1.
    x += 0.6
  scope = scopes[0] if len(set(scopes)) == 1 else '; '.join(scopes)
  plots.style_axes(axes, f'{title}, all members\n{scope}',
                   ylabel=drawing.axis_name(score))
  axes.set_yscale('log')
  axes.set_ylim(low / 1.5, high * 1.5)
  plots.set_log(axes.yaxis)
  axes.set_xlim(-0.6, x - 0.9)
  axes.set_xticks([tick for tick, _ in ticks], [words for _, words in ticks])
  axes.grid(False, axis='x')
