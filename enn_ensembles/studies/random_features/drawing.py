"""The picture of the study: KL by width, a panel per cell and noise level."""

import itertools

import numpy as np
import pandas as pd

from enn_ensembles.report import plots
from enn_ensembles.scoring import gaussian

_STYLES = (('o', '-'), ('x', ':'), ('^', '-.'), ('s', '--'))

CELL = ['input_dim', 'data_ratio', 'num_train', 'noise_std']


def make_picture(table: pd.DataFrame) -> bytes:
  """KL (mean over seeds) against width, as PNG.

  Args:
    table: of `measuring`, all seeds.
  """
  rows = table.to_dict('records')
  cells = sorted({tuple(row[name] for name in CELL[:3]) for row in rows})
  levels = sorted({row['noise_std'] for row in rows})
  nums = sorted({row['num_ensemble'] for row in rows})
  # How last layers are made, by marker and line; the solved ones come first.
  others = sorted({row['last_layer'] for row in rows} - {'solved'})
  styles = dict(zip(['solved', *others], itertools.cycle(_STYLES)))
  colours = dict(zip(nums, plots.WONG))
  figure = plots.make_canvas(3.4 * len(levels) + 0.6, 2.3 * len(cells) + 0.8)
  axes = figure.subplots(len(cells), len(levels), squeeze=False, sharex=True)
  for line, cell in zip(axes, cells):
    input_dim, data_ratio, num_train = cell
    for axis, level in zip(line, levels):
      # (K, how) -> width -> KL of every seed.
      curves: dict[tuple[int, str], dict[int, list[float]]] = {}
      for row in rows:
        if tuple(row[name] for name in CELL) == (*cell, level):
          curves.setdefault((row['num_ensemble'], row['last_layer']),
                            {}).setdefault(row['width'], []).append(
                                row['kl_estimate'])
      for (num, how), curve in sorted(curves.items()):
        widths = sorted(curve)
        solved, (marker, line_style) = how == 'solved', styles[how]
        axis.plot(widths, [np.mean(curve[width]) for width in widths],
                  color=colours[num], marker=marker, markersize=5,
                  linestyle=line_style,
                  label=f'K = {num}' + ('' if solved else f', {how}'))
        if solved:
          axis.axhline(gaussian.finite_sample_floor(num), color=colours[num],
                       linestyle='--', linewidth=0.8)
      axis.axvline(num_train, color='#bbbbbb', linewidth=1, zorder=0)
      plots.style_axes(
          axis, f'D={input_dim:g}, \u03bb={data_ratio:g}, T={num_train}, '
          f'\u03b5={level:g}')
      axis.set_xscale('log', base=2)
      axis.set_yscale('log')
      plots.set_log(axis.yaxis, sparse=True)
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
