"""Figures 2, 4 and 5 of the Layer Ensembles paper, from rows.

Oleksiienko & Iosifidis 2022 (arXiv 2210.04882). Every figure is a picture and
a table of all that it draws, with the intervals of `comparison`: means over
the cells of each seed, then over seeds, Student's t 95 %. Arithmetic means are
drawn; geometric ones and the other direction of the KL are in the table.
"""

from collections.abc import Sequence
import dataclasses
import io
import math
from typing import Any
from typing import NamedTuple

from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
from matplotlib import ticker
from matplotlib.backends import backend_agg
import numpy as np
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.report import comparison
from enn_ensembles.report import leaderboard
from enn_ensembles.studies.layer_ensembles import claims

# Wong (2011), Nature Methods 8:441: told apart with any colour vision.
_BLUE, _ORANGE, _GREEN, _PINK, _GREY = (
    '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#555555')
_OPTIONS_COLOURS = {2: _GREEN, 3: _BLUE, 5: _ORANGE, 6: _PINK}
_OPTIONS_STYLES = {2: ':', 3: '-.', 5: '-', 6: '--'}
_SELECTION_COLOURS = {'none': _GREY, 'oracle': _BLUE, 'val_nll': _ORANGE}
_SELECTION_STYLES = {'none': ':', 'oracle': '-', 'val_nll': '--'}
_LEVEL_COLOURS = (_BLUE, _ORANGE, _GREEN, _PINK, _GREY)
_LEVEL_MARKS = 'osD^v'
SELECTION_NAMES = {'none': 'random order (selection none)',
                   'oracle': 'ranked, selection oracle',
                   'val_nll': 'ranked, selection val_nll'}

NUM_OPTIONS = (2, 3, 5, 6)
_READ_OFF = 20  # The P that the paper reads off its Fig. 4.
# Points of a long path that go into the table.
_TABLE_POINTS = 40
# One or two members have no spread to speak of: their KL is of the order of
# 1e5 and would leave no room for the rest.
_HIGHEST_ON_AXIS = 30.

_FIGURE2_DEEP = {1.: (2, 3, 5, 10, 30), 0.: (3, 10, 30)}
_SUBSETS = ((3, 2), (3, 5), (5, 2), (5, 11))  # (K, num_index_samples)

FIGURE5_SETTINGS = (
    *(claims.layer_ensemble(5, selection=selection)
      for selection in ('oracle', 'val_nll', 'none')),
    *claims.COMPETITORS,
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


def _with_fields(setting: comparison.Setting, label: str,
                 **fields: Any) -> comparison.Setting:
  return dataclasses.replace(
      setting, fields=setting.fields + tuple(fields.items()), label=label)


def first_option(num_options: int) -> comparison.Setting:
  """A layer ensemble whose target noise depends on the first option only."""
  return _with_fields(claims.layer_ensemble(num_options),
                      f'K = {num_options}, noise by first option',
                      noise_by='first_option')


def index_subset(num_options: int, num: int) -> comparison.Setting:
  """A layer ensemble trained on a random subset per step."""
  return _with_fields(claims.layer_ensemble(num_options),
                      f'K = {num_options}, {num} combinations per step',
                      num_index_samples=num)


def _table_row(panel: str, compared: comparison.Comparison,
               setting: comparison.Setting, num_samples: int | None,
               scores: dict[str, np.ndarray], label: str = '',
               **extra: Any) -> dict[str, Any]:
  """A row of the table; scores are [C, S] by name."""
  row = {'panel': panel, 'label': label or setting.label,
         'agent': setting.agent, 'selection': setting.selection,
         'reference': compared.reference,
         'settings': ' '.join(f'{k}={v:g}' if isinstance(v, float) else
                              f'{k}={v}' for k, v in setting.fields),
         'num_samples': num_samples}
  for score, values in scores.items():
    for name, found in ((f'{score}_mean', comparison.mean_interval(values)),
                        (f'{score}_geometric_mean',
                         comparison.geometric_interval(values))):
      stem = name.removesuffix('_mean')
      row[name] = float(found.value)
      row[f'{stem}_low'] = None if found.low is None else float(found.low)
      row[f'{stem}_high'] = None if found.high is None else float(found.high)
  shape = next(iter(scores.values())).shape
  return {**row, 'num_cells': shape[0], 'num_seeds': shape[1], **extra}


def _all_members(panel: str, compared: comparison.Comparison,
                 setting: comparison.Setting, **extra: Any) -> dict[str, Any]:
  """The table row of a setting as it was scored."""
  used = {compared.rows[setting][(*cell, seed)]['num_samples_used']
          for cell in compared.cells for seed in compared.seeds}
  return _table_row(
      panel, compared, setting, used.pop() if len(used) == 1 else None,
      {score: compared.values(setting, score) for score in comparison.SCORES},
      **extra)


def _path_rows(panel: str, compared: comparison.Comparison,
               setting: comparison.Setting,
               always: Sequence[int] = ()) -> list[dict[str, Any]]:
  """Table rows along a path, thinned where it is long."""
  paths = {score: compared.path(setting, score)
           for score in comparison.SCORES}
  length = paths['kl_estimate'].shape[-1]
  nums = {int(p) for p in np.geomspace(1, length, _TABLE_POINTS).round()}
  nums |= {p for p in always if p <= length}
  return [_table_row(panel, compared, setting, num,
                     {score: path[..., num - 1]
                      for score, path in paths.items()})
          for num in sorted(nums)]


def _make_canvas(width: float, height: float) -> figure_lib.Figure:
  """A white figure; inches."""
  figure = figure_lib.Figure(figsize=(width, height), dpi=150,
                             facecolor='white', layout='constrained')
  backend_agg.FigureCanvasAgg(figure)
  return figure


def _to_png(figure: figure_lib.Figure) -> bytes:
  stream = io.BytesIO()
  # Software and date would make the same picture another file.
  figure.savefig(stream, format='png', metadata={'Software': None})
  return stream.getvalue()


def _style(axes, title: str, xlabel: str = '', ylabel: str = '') -> None:
  axes.set_title(title, fontsize=10, loc='left')
  axes.set_xlabel(xlabel, fontsize=9)
  axes.set_ylabel(ylabel, fontsize=9)
  axes.tick_params(labelsize=8.5)
  axes.grid(color='#e2e2e2', linewidth=0.6)
  axes.set_axisbelow(True)
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)


def _set_log(axis) -> None:
  """Log ticks as plain numbers, 0.2 and not 2 x 10^-1; more on a short axis."""
  low, high = axis.get_view_interval()
  decades = math.log10(high / low)
  subs = ((1., 1.5, 2., 3., 4., 5., 7.) if decades < 1. else
          (1., 2., 5.) if decades < 3. else (1.,))
  axis.set_major_locator(ticker.LogLocator(subs=subs, numticks=15))
  axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f'{v:g}'))
  axis.set_minor_locator(ticker.NullLocator())


def _draw_path(axes, path: np.ndarray, style: str = '-',
               **options: Any) -> np.ndarray:
  """Mean and interval of path [C, S, J] against P; the means [J]."""
  found = comparison.mean_interval(path)
  x = np.arange(1, path.shape[-1] + 1)
  axes.plot(x, found.value, style, linewidth=1.7, **options)
  if found.low is not None:
    axes.fill_between(x, np.maximum(found.low, 1e-12), found.high, alpha=0.18,
                      linewidth=0, color=options['color'])
  return found.value


def _draw_point(axes, x: float, values: np.ndarray, **options: Any) -> float:
  """Mean and interval of values [C, S]; the mean."""
  found = comparison.mean_interval(values)
  if found.low is not None and np.isfinite(found.value):
    axes.plot([x, x], [max(found.low, 1e-12), found.high], '-',
              color=options['color'], linewidth=1.6)
  axes.plot([x], [found.value], linestyle='none', **options)
  return float(found.value)


def _y_limits(values: Sequence[float]) -> tuple[float, float]:
  """Limits of a log axis around what is worth its ink."""
  kept = [v for v in values if math.isfinite(v) and 0 < v <= _HIGHEST_ON_AXIS]
  if not kept:
    return 0.1, _HIGHEST_ON_AXIS
  return min(kept) / 1.25, min(_HIGHEST_ON_AXIS, max(kept) * 1.25)


def make_figure2(rows: Sequence[comparison.Row], reference: str = 'bayes',
                 allow_missing: bool = False) -> Drawn:
  """Fig. 2: KL by random samples and options, beside deep ensembles.

  Upper panels: the mean KL of the first P members of a random order, with and
  without priors. Lower panels: the two rules of target noise, and training on
  a random subset of the combinations per step.

  Args:
    rows: as `leaderboard.read_results` gives them.
    reference: reference of the scores.
    allow_missing: draw what is there, and note what is not.

  Raises:
    ValueError: rows that are needed are missing, or contradict each other.
  """
  config = 'testbed_configs/figure2.py'
  table, notes, drawn = [], [], []
  figure = _make_canvas(11., 8.6)
  axes = figure.subplots(2, 2, gridspec_kw={'height_ratios': [3, 2]})
  for panel_axes, prior_scale, name in zip(
      axes[0], (1., 0.), ('with priors', 'without priors')):
    layered = [claims.layer_ensemble(k, prior_scale) for k in NUM_OPTIONS]
    deep = [claims.deep_ensemble(k, prior_scale)
            for k in _FIGURE2_DEEP[prior_scale]]
    compared = comparison.compare(
        rows, [*layered, *deep], reference=reference, with_path=layered,
        config=config, allow_missing=allow_missing)
    notes += [f'{name}: {note}' for note in compared.notes]
    for setting in layered:
      if setting in compared.settings:
        k = setting.get('num_options')
        drawn += list(_draw_path(
            panel_axes, compared.path(setting, 'kl_estimate'),
            _OPTIONS_STYLES[k], color=_OPTIONS_COLOURS[k],
            label=f'layer ensemble, K = {k}')[3:])
        table += _path_rows(name, compared, setting)
        table.append(_all_members(f'{name}, all members', compared, setting))
    present = [s for s in deep if s in compared.settings]
    members = [s.get('num_ensemble') for s in present]
    means = [_draw_point(panel_axes, k, compared.values(s, 'kl_estimate'),
                         color='black', marker='s', markersize=5,
                         label='deep ensemble, K = P' if i == 0 else None)
             for i, (k, s) in enumerate(zip(members, present))]
    panel_axes.plot(members, means, '-', color='black', linewidth=0.8,
                    alpha=0.6)
    drawn += [m for k, m in zip(members, means) if k > 2]
    table += [_all_members(name, compared, s) for s in present]
    _style(panel_axes, f'{name[0].upper()}{name[1:]}\n{compared.scope()}',
           'P, members of a random order', 'mean KL to the posterior, nats')
    panel_axes.set_xscale('log')
    panel_axes.set_xlim(0.9, 260)
    _set_log(panel_axes.xaxis)
    panel_axes.legend(fontsize=8.5, frameon=False)
  for panel_axes in axes[0]:
    panel_axes.set_yscale('log')
    panel_axes.set_ylim(*_y_limits(drawn))
    _set_log(panel_axes.yaxis)
  notes.append('figure 2 is cut at a mean KL of '
               f'{axes[0, 0].get_ylim()[1]:.3g}; one and two members lie '
               'above, their values are in the table.')

  pairs = [(f'K = {k}', claims.layer_ensemble(k), 'by combination',
            [(first_option(k), 'by first option')]) for k in (2, 3)]
  _draw_groups(axes[1, 0], 'Target noise', pairs, rows, reference, config,
               allow_missing, table, notes)
  pairs = [(f'K = {k}', claims.layer_ensemble(k), f'all {k**3}',
            [(index_subset(k, num), f'{num} random')
             for options, num in _SUBSETS if options == k]) for k in (3, 5)]
  _draw_groups(axes[1, 1], 'Combinations trained per step', pairs, rows,
               reference, config, allow_missing, table, notes)
  return Drawn(_to_png(figure), pd.DataFrame(table, dtype=object),
               tuple(notes))


def _draw_groups(axes, title: str, groups, rows, reference: str, config: str,
                 allow_missing: bool, table: list, notes: list) -> None:
  """A panel of points: (name, usual setting, its name, variants) per group."""
  ticks, low, high = [], math.inf, 0.
  x = 0.
  scopes = []
  for name, usual, usual_name, variants in groups:
    settings = [usual, *(setting for setting, _ in variants)]
    compared = comparison.compare(
        rows, settings, reference=reference, config=config,
        allow_missing=allow_missing)
    panel = f'{title.lower()}, {name}'
    notes += [f'{panel}: {note}' for note in compared.notes]
    scopes.append(f'{len(compared.cells)} cells, {len(compared.seeds)} seeds')
    for setting, text in [(usual, usual_name), *variants]:
      if setting not in compared.settings:
        continue
      values = compared.values(setting, 'kl_estimate')
      extra = {}
      if setting != usual and usual in compared.settings:
        ratio = comparison.ratio_interval(
            values, compared.values(usual, 'kl_estimate'))
        extra = {'ratio_to_usual': ratio.value, 'ratio_low': ratio.low,
                 'ratio_high': ratio.high}
        interval = '' if ratio.low is None else (
            f' [{ratio.low:.3g}, {ratio.high:.3g}]')
        notes.append(f'{panel}: KL {text} / {usual_name} = '
                     f'{ratio.value:.3g}{interval}.')
      table.append(_all_members(panel, compared, setting, **extra))
      mean = _draw_point(
          axes, x, values, color=_BLUE if setting == usual else _ORANGE,
          marker='o' if setting == usual else 'D', markersize=6)
      axes.annotate(leaderboard.short_number(mean), (x, mean), (9, 0),
                    textcoords='offset points', va='center', fontsize=8.5)
      low, high = min(low, mean), max(high, mean)
      ticks.append((x, f'{name}\n{text}'))
      x += 1.
    x += 0.6
  scope = scopes[0] if len(set(scopes)) == 1 else '; '.join(scopes)
  _style(axes, f'{title}: mean KL, all members\nreference {reference}, {scope}',
         ylabel='mean KL, nats')
  axes.set_yscale('log')
  axes.set_ylim(low / 1.5, high * 1.5)
  _set_log(axes.yaxis)
  axes.set_xlim(-0.6, x - 0.9)
  axes.set_xticks([tick for tick, _ in ticks], [text for _, text in ticks])
  axes.grid(False, axis='x')


def _figure4_settings() -> tuple[list, list]:
  """(settings with paths, settings without) of Fig. 4."""
  ranked = [claims.layer_ensemble(k, selection=selection)
            for k in NUM_OPTIONS for selection in SELECTION_NAMES]
  ranked += [claims.deep_ensemble(30, selection=selection)
             for selection in SELECTION_NAMES]
  return ranked, [claims.deep_ensemble(10)]


def make_figure4(rows: Sequence[comparison.Row], reference: str = 'bayes',
                 allow_missing: bool = False) -> Drawn:
  """Fig. 4: KL by the number of samples P, in random and in ranked order.

  A panel per K, one for a deep ensemble of 30 ranked the same way, and one of
  the best P of K = 5 in each cell. Arguments and errors as `make_figure2`.
  """
  with_path, plain = _figure4_settings()
  compared = comparison.compare(
      rows, [*with_path, *plain], reference=reference, with_path=with_path,
      config='testbed_configs/figure4.py', allow_missing=allow_missing)
  table, notes = [], list(compared.notes)
  figure = _make_canvas(13., 8.2)
  axes = figure.subplots(2, 3)
  curves, shown = list(axes.flat)[:5], []
  lines = [s for s in (claims.deep_ensemble(10), claims.deep_ensemble(30))
           if s in compared.settings]
  for panel_axes, k in zip(curves, (*NUM_OPTIONS, None)):
    name = ('deep ensemble of 30' if k is None else
            f'layer ensemble, K = {k}, J = {k**3}')
    for selection, text in SELECTION_NAMES.items():
      setting = (claims.deep_ensemble(30, selection=selection) if k is None
                 else claims.layer_ensemble(k, selection=selection))
      if setting not in compared.settings:
        continue
      path = compared.path(setting, 'kl_estimate')
      means = _draw_path(panel_axes, path, _SELECTION_STYLES[selection],
                         color=_SELECTION_COLOURS[selection])
      shown += list(means[4:])
      best = comparison.best_num_samples(path)
      table += _path_rows(name, compared, setting,
                          always=(best, _READ_OFF, 36))
      note = (f'{setting}: best P {best} of {len(means)}, mean KL '
              f'{leaderboard.short_number(float(means[best - 1]))}')
      if len(means) >= _READ_OFF:
        note += (f'; P = {_READ_OFF}: '
                 f'{leaderboard.short_number(float(means[_READ_OFF - 1]))}')
      notes.append(f'{note}; all: '
                   f'{leaderboard.short_number(float(means[-1]))}.')
      if selection != 'none':
        panel_axes.plot([best], [means[best - 1]], marker='*', markersize=12,
                        color=_SELECTION_COLOURS[selection],
                        markeredgecolor='white', markeredgewidth=0.7, zorder=5)
        # Both stars are often close: one number above, one below.
        panel_axes.annotate(
            f'P = {best}', (best, means[best - 1]),
            (0, -13 if selection == 'oracle' else 8),
            textcoords='offset points', ha='center', fontsize=8,
            color=_SELECTION_COLOURS[selection])
    for setting in lines:
      mean = float(np.mean(compared.values(setting, 'kl_estimate')))
      num = setting.get('num_ensemble')
      panel_axes.axhline(mean, color='black', linewidth=1.,
                         linestyle='-' if num == 30 else (0, (1, 3)))
      shown.append(mean)
    panel_axes.axvline(_READ_OFF, color='#bbbbbb', linewidth=0.8, zorder=0)
    _style(panel_axes, name[0].upper() + name[1:], 'P, samples',
           'mean KL, nats')
    panel_axes.set_xscale('log')
    panel_axes.set_xlim(0.9, 260)
    _set_log(panel_axes.xaxis)
  for setting in lines:
    table.append(_all_members('deep ensembles', compared, setting))
  low, high = _y_limits(shown)
  for panel_axes in curves:
    panel_axes.set_yscale('log')
    panel_axes.set_ylim(low, min(high, 20 * low))
    _set_log(panel_axes.yaxis)
  notes.append('figure 4 is cut at a mean KL of '
               f'{curves[0].get_ylim()[1]:.3g}; few samples lie above, their '
               'values are in the table.')
  _draw_best_by_cell(axes.flat[5], compared, table)
  marks = [lines_lib.Line2D([], [], color=_SELECTION_COLOURS[s],
                            linestyle=_SELECTION_STYLES[s], linewidth=1.7,
                            label=text)
           for s, text in SELECTION_NAMES.items()]
  marks += [
      lines_lib.Line2D([], [], color='black', linewidth=1.,
                       label='deep ensemble of 30, all'),
      lines_lib.Line2D([], [], color='black', linewidth=1.,
                       linestyle=(0, (1, 3)), label='of 10, all'),
      lines_lib.Line2D([], [], color=_GREY, marker='*', markersize=10,
                       linewidth=0, label='best P'),
      lines_lib.Line2D([], [], color='#bbbbbb', linewidth=0.8,
                       label=f'P = {_READ_OFF}')]
  figure.legend(handles=marks, loc='outside lower center', ncols=7,
                fontsize=8.5, frameon=False)
  figure.suptitle(f'KL by number of samples; {compared.scope()}', fontsize=11)
  return Drawn(_to_png(figure), pd.DataFrame(table, dtype=object),
               tuple(notes))


def _draw_best_by_cell(axes, compared: comparison.Comparison,
                       table: list) -> None:
  """Best P of the ranked layer ensemble of 5 in every cell, with intervals."""
  for offset, selection in ((-0.15, 'oracle'), (0.15, 'val_nll')):
    setting = claims.layer_ensemble(5, selection=selection)
    if setting not in compared.settings:
      continue
    path = compared.path(setting, 'kl_estimate')
    for y, cell in enumerate(compared.cells):
      found = comparison.best_num_samples_interval(path[[y]])
      table.append(_table_row(
          'best P by cell', compared, setting, found.value,
          {score: compared.path(setting, score)[[y]][..., found.value - 1]
           for score in comparison.SCORES},
          input_dim=cell[0], data_ratio=cell[1], noise_std=cell[2],
          best_num_samples=found.value, best_num_samples_low=found.low,
          best_num_samples_high=found.high))
      if found.low is not None:
        axes.plot([max(1., found.low), min(found.high, path.shape[-1])],
                  [y + offset] * 2, '-', color=_SELECTION_COLOURS[selection],
                  linewidth=1.4)
      axes.plot([found.value], [y + offset], 'o', markersize=4.5,
                color=_SELECTION_COLOURS[selection])
  axes.axvline(36, color='black', linewidth=0.9, linestyle=(0, (4, 3)))
  _style(axes, 'Best P of K = 5 by cell (dashed: 36, the paper)',
         "P, dot: best on the mean; bar: 95 % of each seed's best")
  axes.set_xscale('log')
  axes.set_xlim(0.9, 150)
  _set_log(axes.xaxis)
  axes.set_ylim(len(compared.cells) - 0.5, -0.5)
  axes.set_yticks(range(len(compared.cells)), [
      f'{dim}, {ratio:g}, {noise:g}' for dim, ratio, noise in compared.cells],
                  fontsize=7.5)
  axes.set_ylabel('D, λ, ε', fontsize=9)


def make_figure5(rows: Sequence[comparison.Row], reference: str = 'bayes',
                 allow_missing: bool = False) -> Drawn:
  """Fig. 5: all agents at their papers' settings: mean KL and its spread.

  Left: per agent a box of the KL over cells and seeds, and the mean with its
  interval. Right: the mean by noise level and by input dimension. The ranked
  layer ensemble stands there with the P that validation chose on each problem,
  and with the one P that is best on the mean. Arguments and errors as
  `make_figure2`.
  """
  ranked = [s for s in FIGURE5_SETTINGS if s.selection != 'none']
  compared = comparison.compare(
      rows, FIGURE5_SETTINGS, reference=reference, with_path=ranked,
      config='testbed_configs/figure5.py', allow_missing=allow_missing)
  entries = []  # (label, setting, number of samples, scores)
  for setting in compared.settings:
    label = str(setting).replace(', selection', ',')
    scores = {s: compared.values(setting, s) for s in comparison.SCORES}
    if setting in ranked:
      entries.append((f'{label}, P by validation', setting, None, scores))
      path = {s: compared.path(setting, s) for s in comparison.SCORES}
      best = comparison.best_num_samples(path['kl_estimate'])
      entries.append((
          f'{label}, P = {best}', setting, best,
          {s: values[..., best - 1] for s, values in path.items()}))
    else:
      if setting.agent == 'layer_ensemble':
        label += ', all members'
      entries.append((label, setting, None, scores))
  def order(entry):
    mean = float(np.mean(entry[3]['kl_estimate']))
    return (not math.isfinite(mean), mean if math.isfinite(mean) else 0.,
            entry[0])
  entries.sort(key=order)

  table = []
  for label, setting, num, scores in entries:
    for group in ('all', 'noise_std', 'input_dim'):
      column = {'noise_std': 2, 'input_dim': 0}.get(group)
      levels = [None] if column is None else sorted(
          {cell[column] for cell in compared.cells})
      for level in levels:
        here = [i for i, cell in enumerate(compared.cells)
                if level is None or cell[column] == level]
        inside = {s: values[here] for s, values in scores.items()}
        kl = inside['kl_estimate']
        with np.errstate(invalid='ignore'):
          spread = {
              'kl_estimate_std': float(np.std(kl)),
              'kl_reverse_std': float(np.std(inside['kl_reverse'])),
              **{f'kl_estimate_{name}': float(np.quantile(kl, q))
                 for name, q in (('min', 0.), ('quartile_1', 0.25),
                                 ('median', 0.5), ('quartile_3', 0.75),
                                 ('max', 1.))}}
        table.append(_table_row(
            'all cells' if level is None else f'by {group}', compared, setting,
            num, inside, label=label,
            input_dim=level if group == 'input_dim' else None,
            noise_std=level if group == 'noise_std' else None, **spread))
  notes = list(compared.notes)
  if any(row['num_samples'] for row in table):
    notes.append('figure 5: the P of "P = ..." is the best on these scores; '
                 '"P by validation" is chosen on x_val, problem by problem.')
  return Drawn(_draw_figure5(compared, entries),
               pd.DataFrame(table, dtype=object), tuple(notes))


def _draw_figure5(compared: comparison.Comparison, entries: list) -> bytes:
  """The picture of `make_figure5`."""
  figure = _make_canvas(14., 1.9 + 0.33 * len(entries))
  left, *rights = figure.subplots(1, 3, sharey=True,
                                  gridspec_kw={'width_ratios': [2.2, 1, 1]})
  kls = [scores['kl_estimate'] for *_, scores in entries]
  # The exact posterior is an audit: its 0 and 0.001 need no room.
  on_axis = np.concatenate([[1.], *(
      kl.ravel() for (_, setting, _, _), kl in zip(entries, kls)
      if setting.agent != 'exact_posterior')])
  on_axis = on_axis[(on_axis > 0) & (on_axis <= _HIGHEST_ON_AXIS)]
  low, high = on_axis.min() / 1.3, min(_HIGHEST_ON_AXIS, on_axis.max() * 1.3)
  for y, ((label, setting, _, _), kl) in enumerate(zip(entries, kls)):
    colour = _SELECTION_COLOURS.get(setting.selection) if (
        setting.selection != 'none') else (
            _GREEN if setting.agent == 'layer_ensemble' else _GREY)
    if y % 2:
      for axes in (left, *rights):
        axes.axhspan(y - 0.5, y + 0.5, color='#f4f4f4', zorder=0, linewidth=0)
    values = kl[np.isfinite(kl)]
    if values.size and low <= np.max(values) and np.min(values) <= high:
      q0, q1, q2, q3, q4 = np.clip(np.quantile(values, [0, .25, .5, .75, 1]),
                                   low, high)
      left.plot([q0, q4], [y, y], '-', color=colour, linewidth=0.9, zorder=2)
      left.barh(y, q3 - q1, left=q1, height=0.5, color=colour, alpha=0.28,
                zorder=2)
      left.plot([q2, q2], [y - 0.25, y + 0.25], color=colour, linewidth=1.4,
                zorder=3)
    found = comparison.mean_interval(kl)
    if found.is_known and low <= found.value <= high:
      ends = np.clip([found.low, found.high], low, high)
      left.plot(ends, [y, y], '-', color='black', linewidth=2.4, zorder=4,
                solid_capstyle='butt')
    _mark(left, float(found.value), y, low, high, color='black', markersize=6)
    text = leaderboard.short_number(float(found.value))
    left.text(1.015, y, text, transform=left.get_yaxis_transform(), va='center',
              fontsize=8.5)
    for axes, column in zip(rights, (2, 0)):
      levels = sorted({cell[column] for cell in compared.cells})
      for i, level in enumerate(levels):
        here = [j for j, cell in enumerate(compared.cells)
                if cell[column] == level]
        _mark(axes, float(np.mean(kl[here])),
              y + 0.24 * (i - (len(levels) - 1) / 2), low, high,
              marker=_LEVEL_MARKS[i % 5], color=_LEVEL_COLOURS[i % 5],
              markersize=6, alpha=0.9)
  for axes, column, name in zip(rights, (2, 0), ('ε', 'D')):
    levels = sorted({cell[column] for cell in compared.cells})
    axes.legend(handles=[
        lines_lib.Line2D([], [], linewidth=0, marker=_LEVEL_MARKS[i % 5],
                         color=_LEVEL_COLOURS[i % 5],
                         label=f'{name} = {level:g}')
        for i, level in enumerate(levels)], fontsize=8, frameon=False,
                ncols=3, loc='upper center', bbox_to_anchor=(0.5, -0.09),
                handletextpad=0.2, columnspacing=0.9)
  _style(left, 'All cells: mean (black, 95 % interval), box and range over '
         'cells and seeds', 'KL to the posterior, nats')
  _style(rights[0], 'Mean by noise', 'mean KL, nats')
  _style(rights[1], 'Mean by input dimension', 'mean KL, nats')
  for axes in (left, *rights):
    axes.set_xscale('log')
    axes.set_xlim(low, high)
    _set_log(axes.xaxis)
    axes.grid(False, axis='y')
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
  left.set_ylim(len(entries) - 0.5, -0.5)
  left.set_yticks(range(len(entries)), [label for label, *_ in entries],
                  fontsize=9)
  figure.suptitle(f'All agents; {compared.scope()}. '
                  'Arrows: off the axis', fontsize=11)
  return _to_png(figure)


def _mark(axes, value: float, y: float, low: float, high: float,
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
              f'{name}.csv': leaderboard.csv_text(table).encode()}
  for file, content in contents.items():
    files.write_atomically(folder / file, content)
  return {file: folder / file for file in contents}
