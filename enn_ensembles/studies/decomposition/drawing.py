"""Pictures of the study, a function per table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import plots
from enn_ensembles.studies.decomposition import images
from enn_ensembles.studies.decomposition import regression

_RATIOS = (0.03, 0.1, 0.3, 1., 3.)  # Of stds; those measured lie between.
_SIZES = ('fewest', 'more', 'most')
_PARTS = {'aleatoric': 'AU', 'epistemic': 'EU'}


def pictures(tables: Mapping[str, pd.DataFrame]) -> dict[str, bytes]:
  """File name -> PNG, of the tables that there are."""
  makers = {'grid': grid, 'split': split, 'response': response,
            'robustness': robustness}
  found = {f'{name}.png': make(tables[name])
           for name, make in makers.items() if name in tables}
  if 'grid' in tables:
    found['aggregation.png'] = aggregation(tables['grid'])
  return found


def _canvas(num_rows: int, num_columns: int, **shared: Any
            ) -> tuple[Any, np.ndarray]:
  figure = plots.make_canvas(3.4 * num_columns, 2.5 * num_rows + 0.5)
  return figure, figure.subplots(num_rows, num_columns, squeeze=False, **shared)


def _end(figure: Any, axes: Any, ncols: int = 4) -> bytes:
  handles, labels = axes.get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', fontsize=8,
                ncols=ncols, frameon=False)
  return plots.to_png(figure)


def _mean_and_range(axes: Any, x: Any, values: pd.DataFrame, colour: str,
                    label: str, style: str = 'o-') -> None:
  """A line of means over seeds [rows] with bars from least to largest."""
  mean = values.mean(axis=0)
  bars = [mean - values.min(axis=0), values.max(axis=0) - mean]
  axes.errorbar(x, mean, yerr=np.abs(bars), fmt=style, color=colour,
                markersize=4, linewidth=1.3, capsize=2, label=label)


def grid(table: pd.DataFrame) -> bytes:
  """AU and EU by share of flipped labels, a line per size."""
  whole = table.loc[table['aggregation'] == 'none']
  datasets = list(whole['dataset'].unique())
  agents = list(whole['agent'].unique())
  figure, axes = _canvas(2 * len(datasets), len(agents))
  for d, dataset in enumerate(datasets):
    of_data = whole.loc[whole['dataset'] == dataset]
    sizes = sorted(of_data['size'].unique())
    for a, agent in enumerate(agents):
      group = of_data.loc[of_data['agent'] == agent]
      for p, (part, short) in enumerate(_PARTS.items()):
        one = axes[2 * d + p, a]
        if group.empty:
          one.axis('off')
          continue
        for rank, size in enumerate(sizes):
          values = group.loc[group['size'] == size].pivot(
              index='seed', columns='share', values=f'{part}_uncertainty')
          place = 0 if rank == 0 else 2 if rank == len(sizes) - 1 else 1
          _mean_and_range(one, values.columns, values, plots.WONG[place],
                          f'{_SIZES[place]} training images')
        if part == 'aleatoric':
          truth = group.groupby('share', as_index=False).first()
          one.plot(truth['share'], truth['noise_entropy'], 'k--', linewidth=1,
                   label='entropy of the flips')
        one.set_ylim(bottom=0)
        plots.style_axes(one, f'{dataset}: {agent}', 'share of flipped labels',
                         f'{short}, nats')
  return _end(figure, axes[0, 0])


def split(table: pd.DataFrame) -> bytes:
  """Geometric ratio to the truth, and error, of both parts."""
  agents = [name for name in regression.SPLIT_AGENTS
            if name in set(table['agent'])]
  cells = sorted(set(zip(table['num_train'], table['noise_std'])))
  figure, axes = _canvas(len(cells), 3, sharey=True)
  places = np.arange(len(agents))
  for row, (num_train, noise_std) in enumerate(cells):
    group = table.loc[(table['num_train'] == num_train)
                      & (table['noise_std'] == noise_std)]
    for part, colour, shift in (('aleatoric', plots.WONG[0], -0.12),
                                ('epistemic', plots.WONG[1], 0.12)):
      for column, measure in enumerate(('ratio', 'error', 'correlation')):
        values = group.pivot(index='seed', columns='agent',
                             values=f'{part}_{measure}')[agents]
        mean = values.mean(axis=0)
        bars = [mean - values.min(axis=0), values.max(axis=0) - mean]
        one = axes[row, column]
        one.errorbar(mean, places + shift, xerr=np.abs(bars), fmt='o',
                     color=colour, markersize=4, capsize=2,
                     label=f'{part} std')
        one.set_yticks(places, agents, fontsize=8)
        title = f'T = {num_train}, ε = {noise_std:g}'
        plots.style_axes(one, title, {
            'ratio': 'std / true std', 'error': 'RMSE of log std',
            'correlation': 'correlation with the truth'}[measure])
    axes[row, 0].set_xscale('log')
    axes[row, 0].set_xticks(_RATIOS, [f'{ratio:g}' for ratio in _RATIOS])
    axes[row, 0].minorticks_off()
    axes[row, 0].set_xlim(_RATIOS[0], _RATIOS[-1])
    axes[row, 0].axvline(1., color='grey', linewidth=0.8)
    axes[row, 1].axvline(group['epistemic_error_floor'].max(), linestyle=':',
                         color=plots.WONG[1], linewidth=1,
                         label='floor of the epistemic std')
    axes[row, 2].set_xlim(-1.05, 1.05)
    axes[row, 2].axvline(0., color='grey', linewidth=0.8)
  axes[0, 0].invert_yaxis()
  return _end(figure, axes[0, 1])


def response(table: pd.DataFrame) -> bytes:
  """Epistemic std by noise level, beside the exact posterior's."""
  whole = table.loc[table['aggregation'] == 'none']
  sizes = sorted(whole['num_train'].unique())
  figure = plots.make_canvas(4. * len(sizes) + 2., 3.6)
  axes = figure.subplots(1, len(sizes), squeeze=False)
  for one, num_train in zip(axes[0], sizes):
    of_size = whole.loc[whole['num_train'] == num_train]
    for agent, colour in zip(of_size['agent'].unique(), plots.WONG):
      values = of_size.loc[of_size['agent'] == agent].pivot(
          index='seed', columns='noise_std', values='log_std').map(np.exp)
      _mean_and_range(one, values.columns, values, colour, agent)
    levels = sorted(of_size['noise_std'].unique())
    exact = [np.exp(of_size.loc[of_size['noise_std'] == level]
                    ['log_std_exact'].mean()) for level in levels]
    one.plot(levels, exact, 'k--', linewidth=1, label='exact posterior')
    one.set_xscale('log')
    one.set_yscale('log')
    plots.style_axes(one, f'T = {num_train}', 'ε', 'epistemic std')
  return _end(figure, axes[0, 0], 3)


def aggregation(table: pd.DataFrame) -> bytes:
  """NLL of each aggregation less that of the mean, by share of flips.

  On clean test labels, and on labels that are flipped like those of training.
  """
  kept = table.loc[table['agent'].isin(('ensemble', 'bagging'))]
  datasets = list(kept['dataset'].unique())
  figure, axes = _canvas(len(datasets), 4, sharey='row')
  for row, dataset in enumerate(datasets):
    of_data = kept.loc[kept['dataset'] == dataset]
    largest = of_data.loc[of_data['size'] == of_data['size'].max()]
    for column, (agent, score, labels) in enumerate((
        ('ensemble', 'nll', 'clean labels'), ('bagging', 'nll', 'clean labels'),
        ('ensemble', 'flipped_nll', 'flipped labels'),
        ('bagging', 'flipped_nll', 'flipped labels'))):
      one = axes[row, column]
      group = largest.loc[largest['agent'] == agent]
      if group.empty:
        one.axis('off')
        continue
      nll = {rule: part.pivot(index='seed', columns='share', values=score)
             for rule, part in group.groupby('aggregation')}
      shares = nll['none'].columns
      for rule, colour in zip(images.AGGREGATIONS[1:], plots.WONG):
        _mean_and_range(one, shares, nll[rule] - nll['none'], colour, rule)
      if score == 'nll':
        single = group.loc[group['aggregation'] == 'none'].pivot(
            index='seed', columns='share', values='member_nll')
        _mean_and_range(one, shares, single - nll['none'], 'black',
                        'mean member', 'x:')
      one.axhline(0., color='grey', linewidth=0.8)
      one.set_yscale('symlog', linthresh=0.1)
      plots.style_axes(one, f'{dataset}: {agent}, {labels}',
                       'share of flipped labels', "NLL less the mean's, nats")
  return _end(figure, axes[0, 0], 3)


def robustness(table: pd.DataFrame) -> bytes:
  """Accuracy by epsilon under each attack."""
  datasets = list(table['dataset'].unique())
  kinds = [kind for kind in table['attack'].unique() if kind != 'none']
  figure, axes = _canvas(len(datasets), len(kinds), sharey='row')
  agents = list(table['agent'].unique())
  for row, dataset in enumerate(datasets):
    of_data = table.loc[table['dataset'] == dataset]
    for column, kind in enumerate(kinds):
      one = axes[row, column]
      for agent, colour in zip(agents, plots.WONG):
        group = of_data.loc[(of_data['agent'] == agent)
                            & of_data['attack'].isin(('none', kind))]
        if set(group['attack']) == {'none'}:
          continue
        values = group.pivot(index='seed', columns='epsilon',
                             values='accuracy')
        _mean_and_range(one, values.columns, values, colour, agent)
      plots.style_axes(one, f'{dataset}: {kind}', 'ε, of pixels from 0 to 1',
                       'accuracy')
  return _end(figure, axes[0, 0])
