"""The picture of the study: KL by width, a panel per cell and noise level."""

import pandas as pd

from enn_ensembles.report import plots

CELL = ['input_dim', 'data_ratio', 'num_train', 'noise_std']


def make_picture(table: pd.DataFrame) -> bytes:
  """KL (mean over seeds) against width, as PNG.

  Args:
    table: of `measuring`, all seeds.
  """
  cells = table[CELL[:3]].drop_duplicates().sort_values(CELL[:2])
  levels = sorted(table['noise_std'].unique())
  nums = sorted(table['num_ensemble'].unique())
  colours = dict(zip(nums, plots.WONG))
  figure = plots.make_canvas(3. * len(levels) + 0.6, 2.3 * len(cells) + 0.8)
  axes = figure.subplots(len(cells), len(levels), squeeze=False, sharex=True)
  for row, cell in zip(axes, cells.itertuples(index=False)):
    for axis, level in zip(row, levels):
      here = table[(table['input_dim'] == cell.input_dim)
                   & (table['data_ratio'] == cell.data_ratio)
                   & (table['noise_std'] == level)]
      for (num, how), own in here.groupby(['num_ensemble', 'last_layer']):
        means = own.groupby('width')['kl_estimate'].mean()
        solved = how == 'solved'
        axis.plot(means.index, means, color=colours[num],
                  marker='o' if solved else 'x', markersize=4,
                  linestyle='-' if solved else ':',
                  label=f'K = {num}' + ('' if solved else f', {how}'))
        if solved:
          axis.axhline(own['kl_floor'].iloc[0], color=colours[num],
                       linestyle='--', linewidth=0.8)
      axis.axvline(cell.num_train, color='#bbbbbb', linewidth=1, zorder=0)
      plots.style_axes(
          axis, f'D = {cell.input_dim:g}, \u03bb = {cell.data_ratio:g}, '
          f'T = {cell.num_train}, \u03b5 = {level:g}')
      axis.set_xscale('log', base=2)
      axis.set_yscale('log')
  for axis in axes[-1]:
    axis.set_xlabel('width')
  for axis in axes[:, 0]:
    axis.set_ylabel('KL')
  handles = {label: handle for axis in axes.ravel()
             for handle, label in zip(*axis.get_legend_handles_labels())}
  figure.legend(list(handles.values()), list(handles), fontsize=8,
                loc='outside lower center', ncols=4, frameon=False)
  figure.suptitle('Random features; dashed: what as many exact draws score; '
                  'grey: width = T', fontsize=10)
  return plots.to_png(figure)
