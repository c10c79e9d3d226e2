"""Pictures of the study, one set for each data set; numbers from `measures`."""

from collections.abc import Iterable
import math

import numpy as np
import pandas as pd

from enn_ensembles.report import plots
from enn_ensembles.scoring import table
from enn_ensembles.studies.batch_ensemble import equivalence

_SHOWN = ('accuracy', 'nll', 'ece', 'shift_accuracy', 'shift_nll',
          'ood_auroc_msp')
_SETS = (('', 'test set'), ('shift_', 'under shift'),
         ('ood_', 'out of distribution'))
_VERDICT_COLOURS = {equivalence.REPRODUCED: '#009E73',
                    equivalence.NOT_REPRODUCED: '#D55E00',
                    equivalence.INCONCLUSIVE: '#9A9A9A'}
_LARGE_RATIO = 5.  # From so many times the least on an axis is logarithmic.
_WIDEST_SHARE = 3.  # Of the deep ensemble's gain; beyond it marks are arrows.


def _colours(own: pd.DataFrame) -> dict[str, str]:
  return plots.family_colours(own['agent'])


def _legend_below(figure, *panels) -> None:
  """One legend under the panels, of the marks of some of them."""
  handles, labels = [], []
  for panel in panels:
    for found, kept in zip(panel.get_legend_handles_labels(),
                           (handles, labels)):
      kept += found
  figure.legend(handles, labels, fontsize=8, ncols=len(labels), frameon=False,
                loc='outside lower center')


def draw_scores(scores: pd.DataFrame) -> bytes:
  """Mean and interval of the main scores of one data set's settings."""
  means = scores[scores['set'] == '']
  labels = list(dict.fromkeys(means['setting']))[::-1]
  colours = _colours(means)
  shown = [name for name in _SHOWN if name in set(means['score'])]
  num_columns = min(3, len(shown))
  num_rows = math.ceil(len(shown) / num_columns)
  figure = plots.make_canvas(13., num_rows * (1.2 + 0.24 * len(labels)))
  axes = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
  for panel, name in zip(axes.ravel(), shown):
    entry = table.SCORES[name]
    plots.style_axes(panel, entry.label, f'{entry.unit}, {entry.direction} is '
                     'better')
    for _, line in means.loc[means['score'] == name].iterrows():
      _draw_interval(panel, line, labels.index(line['setting']),
                     colours[line['agent']])
    panel.set_yticks(range(len(labels)), labels)
    panel.locator_params(axis='x', nbins=5)  # Numbers of four digits fit.
  for panel in axes.ravel()[len(shown):]:
    panel.set_visible(False)
  return plots.to_png(figure)


def _draw_interval(panel, line: pd.Series, place: float, colour: str) -> None:
  if line['low'] is not None:
    panel.plot([line['low'], line['high']], [place, place], color=colour,
               linewidth=1.6)
  panel.plot([line['mean']], [place], 'o', color=colour, markersize=4.5)


def draw_diversity(scores: pd.DataFrame) -> bytes:
  """Mutual information and disagreement in, under shift, out; similarities."""
  means = scores[scores['set'] == '']
  labels = [label for label in dict.fromkeys(means['setting'])
            if len(set(means[means['setting'] == label]['score'])
                   & {'disagreement'})][::-1]
  figure = plots.make_canvas(13., 1.6 + 0.26 * len(labels))
  panels = figure.subplots(1, 3, sharey=True)
  marks = dict(zip((stem for stem, _ in _SETS), 'os^'))
  for panel, name in zip(panels, ('epistemic_uncertainty', 'disagreement')):
    entry = table.SCORES[name]
    plots.style_axes(panel, entry.label, entry.unit)
    for (stem, label), colour in zip(_SETS, plots.WONG):
      own = means.loc[means['score'] == stem + name].set_index('setting')
      there = [one for one in labels if one in own.index]
      values = [own.loc[one, 'mean'] for one in there]
      panel.plot(values, [labels.index(one) for one in there], marks[stem],
                 color=colour, markersize=5, label=label)
    panel.set_xscale('symlog', linthresh=1e-3)
    panel.set_xlim(left=0.)
  plots.style_axes(panels[2], 'Similarity of members', 'correlation or cosine')
  for name, mark, colour in (('logit_correlation', 'D', plots.WONG[3]),
                             ('weight_cosine', 'v', plots.WONG[4])):
    own = means[means['score'] == name]
    panels[2].plot(list(own['mean']), [labels.index(one)
                                       for one in own['setting']],
                   mark, color=colour, markersize=5,
                   label=table.SCORES[name].label)
  _legend_below(figure, panels[0], panels[2])
  panels[0].set_yticks(range(len(labels)), labels)
  return plots.to_png(figure)


def draw_verdicts(verdicts: pd.DataFrame) -> bytes:
  """How far each method goes from one network to the deep ensemble.

  d / g with the interval of d over the mean of g; the band is the margin of
  `equivalence`. Scores whose g is not decided are left out.
  """
  own = verdicts[verdicts['set'] == '']
  decided = own.loc[(own['gain_low'] > 0) | (own['gain_high'] < 0)]
  names = list(dict.fromkeys(decided['score']))
  labels = list(dict.fromkeys(own['setting']))[::-1]
  figure = plots.make_canvas(max(8., 3. + 2.2 * len(names)),
                             1.7 + 0.26 * len(labels))
  panels = figure.subplots(1, max(len(names), 1), sharey=True, squeeze=False)[0]
  for panel in panels:
    panel.axvspan(-equivalence.MARGIN, equivalence.MARGIN, color='#dcdcdc',
                  linewidth=0)
    for place in (0., 1.):
      panel.axvline(place, color='#555555', linewidth=0.8, linestyle=':')
    panel.set_xlim(-_WIDEST_SHARE, _WIDEST_SHARE)
    panel.set_yticks(range(len(labels)), labels)
  if not names:
    plots.style_axes(panels[0], 'No difference of the deep ensemble is decided')
  for panel, name in zip(panels, names):
    plots.style_axes(panel, table.SCORES[name].label.replace(' under ',
                                                             '\nunder '),
                     "share of the deep\nensemble's difference")
    for _, line in decided.loc[decided['score'] == name].iterrows():
      place, colour = labels.index(line['setting']), _VERDICT_COLOURS[
          line['verdict']]
      gain = line['gain']
      ends = np.clip(sorted((line['difference_low'] / gain,
                             line['difference_high'] / gain)),
                     -_WIDEST_SHARE, _WIDEST_SHARE)
      panel.plot(ends, [place, place], color=colour, linewidth=1.6)
      share = line['share']
      outside = abs(share) > _WIDEST_SHARE
      mark = ('<' if share < 0 else '>') if outside else 'o'
      panel.plot([np.clip(share, -_WIDEST_SHARE, _WIDEST_SHARE)], [place], mark,
                 color=colour, markersize=5, clip_on=False)
  for verdict, colour in _VERDICT_COLOURS.items():
    panels[0].plot([], [], 'o', color=colour, label=(
        'like one network: ' if verdict == equivalence.REPRODUCED else
        'not like one: ' if verdict == equivalence.NOT_REPRODUCED else ''
    ) + verdict)
  _legend_below(figure, panels[0])
  return plots.to_png(figure)


def draw_curves(curves: pd.DataFrame) -> bytes:
  """Accuracy and NLL of the first K members of each setting."""
  names = [name for name in ('accuracy', 'nll') if name in set(curves['score'])]
  labels = [label for label in dict.fromkeys(curves['setting'])
            if max(curves[curves['setting'] == label]['num_members']) > 1]
  colours = plots.family_colours(curves['agent'])
  figure = plots.make_canvas(12., 5.)
  panels = figure.subplots(1, len(names), squeeze=False)[0]
  styles = ('-', '--', '-.', ':')
  for panel, name in zip(panels, names):
    entry = table.SCORES[name]
    plots.style_axes(panel, entry.label, 'members', entry.unit)
    seen: dict[str, int] = {}
    for label in labels:
      own = curves[(curves['setting'] == label) & (curves['score'] == name)]
      agent = own.iloc[0]['agent']
      place = seen[agent] = seen.get(agent, -1) + 1
      panel.plot(list(own['num_members']), list(own['mean']), marker='osD^vPX'[
          place % 7], linestyle=styles[place % 4], color=colours[agent],
                 markersize=4, linewidth=1.3, label=label)
    panel.set_xscale('log', base=2)
    largest = max(curves['num_members'])
    ticks = [2**i for i in range(int(math.log2(largest)) + 1)]
    panel.set_xticks(ticks, list(map(str, ticks)))
  figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8,
                loc='outside right upper', frameon=False)
  return plots.to_png(figure)


_COSTS = (('num_params', 'trained parameters'),
          ('train_seconds', 'training, s per problem'),
          ('predict_seconds_per_1000', 'predictions, s per 1000 images'),
          ('peak_memory_mb', 'peak memory of the process, MB'))


def _known_costs(cost: pd.DataFrame) -> list[tuple[str, str]]:
  """(column, label) of the costs that rows know and a clock could tell."""
  return [(name, label) for name, label in _COSTS if any(cost[name])]


def draw_cost(cost: pd.DataFrame) -> bytes:
  """NLL and error rate against each cost that rows know."""
  colours = plots.family_colours(cost['agent'])
  shown = _known_costs(cost)
  figure = plots.make_canvas(4. + 4.5 * len(shown), 8.)
  panels = figure.subplots(2, len(shown), squeeze=False)
  numbers = {label: i + 1 for i, label in enumerate(dict.fromkeys(
      cost['setting']))}
  errors = pd.DataFrame({
      f'error_{end}': 1. - cost[f'accuracy_{other}'] for end, other in (
          ('mean', 'mean'), ('low', 'high'), ('high', 'low'))})
  cost = cost.assign(**errors)
  for row, (score, title, unit) in zip(panels, (
      ('nll', 'NLL', 'nats'), ('error', 'error rate', '1 - accuracy'))):
    for panel, (name, label) in zip(row, shown):
      plots.style_axes(panel, f'{title} at its cost', label, unit)
      for _, line in cost.iterrows():
        if not line[name]:
          continue
        colour = colours[line['agent']]
        if line[f'{score}_low'] is not None:
          panel.plot([line[name]] * 2, [line[f'{score}_low'],
                                        line[f'{score}_high']],
                     color=colour, linewidth=1., alpha=0.5)
        panel.plot([line[name]], [line[f'{score}_mean']], 'o', color=colour,
                   markersize=5)
        panel.annotate(str(numbers[line['setting']]),
                       (line[name], line[f'{score}_mean']), fontsize=7.5,
                       xytext=(4, 3), textcoords='offset points')
      panel.set_xscale('log')
      plots.set_log(panel.xaxis, sparse=True)
      means = cost[f'{score}_mean']
      # One that stays at chance would press all others together.
      if 0. < _LARGE_RATIO * min(means) < max(means):
        panel.set_yscale('log')
        plots.set_log(panel.yaxis, sparse=True)
  agents = dict(zip(cost['setting'], cost['agent']))
  for label, number in numbers.items():
    panels[0, 0].plot([], [], 'o', color=colours[agents[label]],
                      label=f'{number}  {label}')
  figure.legend(*panels[0, 0].get_legend_handles_labels(), fontsize=8,
                loc='outside right upper', frameon=False)
  return plots.to_png(figure)


def draw_all(scores: pd.DataFrame, verdicts: pd.DataFrame, curves: pd.DataFrame,
             cost: pd.DataFrame) -> Iterable[tuple[str, bytes]]:
  """(name of a file, PNG) of every picture of every data set."""
  for data_set in dict.fromkeys(scores['data_set']):
    def of(frame: pd.DataFrame, data_set: str = data_set) -> pd.DataFrame:
      return frame[frame['data_set'] == data_set] if len(frame) else frame

    stem = plots.file_stem(data_set)
    yield f'{stem}_scores.png', draw_scores(of(scores))
    yield f'{stem}_diversity.png', draw_diversity(of(scores))
    if len(of(verdicts)):
      yield f'{stem}_verdicts.png', draw_verdicts(of(verdicts))
    if len(of(curves)):
      yield f'{stem}_curves.png', draw_curves(of(curves))
    if _known_costs(of(cost)):
      yield f'{stem}_cost.png', draw_cost(of(cost))
