"""The study's pictures."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pandas as pd

from enn_ensembles.problems import image_data
from enn_ensembles.report import plots
from enn_ensembles.studies.loss_landscape import ensembles
from enn_ensembles.studies.loss_landscape import formulas
from enn_ensembles.studies.loss_landscape import hard_examples
from enn_ensembles.studies.loss_landscape import samplers
from enn_ensembles.studies.loss_landscape import subspaces
from enn_ensembles.studies.loss_landscape import surfaces

_NAMES = {
    'random': 'random directions', 'dropout': 'dropout of weights',
    'diagonal': 'diagonal Gaussian', 'low_rank': 'low-rank Gaussian',
    'inits': 'independent inits', 'snapshots': 'last snapshots of a run',
    'averaged_snapshots': 'their averaged weights',
    'averaged_inits': 'averaged weights of inits'}
_COLOURS = dict(zip(
    ('inits', *samplers.SAMPLERS, 'snapshots', 'averaged_snapshots',
     'averaged_inits'),
    (plots.WONG[7], *plots.WONG[:4], *plots.WONG[4:7])))
_SCORE_NAMES = {'accuracy': 'test accuracy', 'nll': 'test NLL, nats'}


def _matrix(figure, axes, values: np.ndarray, title: str, axis_name: str,
            **limits: float) -> None:
  image = axes.imshow(values, origin='lower', cmap='viridis', **limits)
  plots.style_axes(axes, title, axis_name, axis_name)
  axes.grid(False)
  bar = figure.colorbar(image, ax=axes, shrink=0.85)
  bar.ax.tick_params(labelsize=8)


def _without_diagonal(values: np.ndarray) -> np.ndarray:
  """What differs: beside a diagonal of 1 it would all have one colour."""
  return np.where(np.eye(len(values), dtype=bool), np.nan, values)


def similarity(along: surfaces.Similarity,
               across: surfaces.Similarity) -> bytes:
  """Cosines and disagreement along the first run, and across runs."""
  figure = plots.make_canvas(8.6, 7.6)
  axes = figure.subplots(2, 2)
  for row, (found, where, axis_name) in enumerate((
      (along, 'along run 0', 'epoch'), (across, 'across inits', 'run'))):
    shown = found.cosine_kernels, found.disagreement
    if row:
      shown = tuple(map(_without_diagonal, shown))
    _matrix(figure, axes[row, 0], shown[0], f'cosine of kernels {where}',
            axis_name)
    _matrix(figure, axes[row, 1], shown[1], f'disagreement of labels {where}',
            axis_name)
  return plots.to_png(figure)


def embedding(trajectories: pd.DataFrame, with_samples: pd.DataFrame) -> bytes:
  """t-SNE and PCA of runs, above; with the samples around the first, below."""
  figure = plots.make_canvas(9.6, 8.)
  axes = figure.subplots(2, 2)
  for row, table in enumerate((trajectories, with_samples)):
    for column, kind in enumerate(('tsne', 'pca')):
      ax = axes[row, column]
      runs = [name for name in table['group'].unique()
              if name.startswith('run')]
      for name, points in table.groupby('group', sort=False):
        x, y = points[f'{kind}_x'], points[f'{kind}_y']
        if name in runs:
          colour = plots.WONG[4:][runs.index(name) % 4]
          ax.plot(x, y, '-o', color=colour, markersize=3, linewidth=0.8,
                  label=name)
          ax.plot(x.iloc[-1], y.iloc[-1], '*', color=colour, markersize=13,
                  markeredgecolor='black', markeredgewidth=0.6, zorder=6)
        else:
          ax.plot(x, y, 'x', color=_COLOURS[name], markersize=4.5,
                  label=_NAMES[name])
      title = {'tsne': 't-SNE', 'pca': 'PCA'}[kind] + (
          ', runs and samples around run 0' if row else
          ', runs (star: last epoch)')
      plots.style_axes(ax, title, 'component 1', 'component 2')
    axes[row, 1].legend(fontsize=8, frameon=False, loc='center left',
                        bbox_to_anchor=(1., 0.5))
  return plots.to_png(figure)


def by_size(curves: pd.DataFrame) -> bytes:
  """Accuracy and NLL by ensemble size; right, subspaces around every init."""
  figure = plots.make_canvas(10.4, 7.4)
  axes = figure.subplots(2, 2, sharey='row')
  for row, score in enumerate(_SCORE_NAMES):
    for column in (0, 1):
      ax = axes[row, column]
      for name, colour in _COLOURS.items():
        together = ensembles.together(name)
        method = together if column and name in samplers.SAMPLERS else name
        if column and method not in (ensembles.DEEP, together):
          continue
        if name == 'averaged_inits':
          continue  # As bad as chance: nothing else would be seen.
        points = curves[curves['method'] == method]
        label = _NAMES[name] if method == name else (
            f'inits, each with {_NAMES[name]}')
        ax.plot(points['size'], points[score],
                '--' if name == 'averaged_snapshots' else '-o', color=colour,
                markersize=3, linewidth=1.4, label=label)
      title = ('each init with its subspace ensemble' if column else
               'ensembles of one kind')
      plots.style_axes(ax, title, 'inits' if column else 'networks',
                       _SCORE_NAMES[score])
      if row == 1:
        ax.legend(fontsize=8, frameon=False)
  return plots.to_png(figure)


def diversity_plane(table: pd.DataFrame, margin: float,
                    num_classes: int) -> bytes:
  """Diversity against accuracy around the first solution, and its limits.

  Args:
    table: of `subspaces.plane_table`.
    margin: networks count for the verdict down to this much below the
      solution's accuracy; the panel on the right shows these.
    num_classes: C.
  """
  table = table[table['solution'] == table['solution'].min()]
  solution = float(table['solution_accuracy'].iloc[0])
  highest = float(table['accuracy'].max())
  panels = ((float(table['accuracy'].min()), 'around run 0'),
            (solution - margin, 'those that count for the verdict'))
  figure = plots.make_canvas(11.4, 4.8)
  axes = figure.subplots(1, 2)
  for ax, (lowest, title) in zip(axes, panels):
    shown = table[table['accuracy'] >= lowest]
    for name in (*samplers.SAMPLERS, subspaces.INITS):
      points = shown[shown['method'] == name]
      is_init = name == subspaces.INITS
      ax.plot(points['accuracy'], points['diversity'],
              '*' if is_init else 'o', color=_COLOURS[name],
              markersize=11 if is_init else 4, alpha=0.8, linestyle='none',
              label=_NAMES[name], zorder=5 if is_init else 3)
    accuracies = np.linspace(lowest, min(highest, 0.999), 400)
    for limit, name, style in ((formulas.upper_limit, 'upper limit', '--'),
                               (formulas.lower_limit, 'lower limit', ':')):
      ax.plot(accuracies, limit(solution, accuracies, num_classes), style,
              color='black', linewidth=1.2, label=name)
    ax.axvline(solution, color='#bbbbbb', linewidth=1.,
               label="run 0's accuracy")
    ax.set_ylim(bottom=-0.05)
    plots.style_axes(ax, f'Diversity and accuracy, {title}', 'test accuracy',
                     'P(label differs) / (1 - accuracy)')
  axes[1].legend(fontsize=8, frameon=False, loc='center left',
                 bbox_to_anchor=(1., 0.5))
  return plots.to_png(figure)


def lines(table: pd.DataFrame) -> bytes:
  """Loss and accuracy along lines."""
  figure = plots.make_canvas(10., 4.2)
  axes = figure.subplots(1, 2)
  for number, (line, rows) in enumerate(table.groupby('line', sort=False)):
    for images, style in (('train', '--'), ('test', '-')):
      points = rows[rows['images'] == images]
      for ax, score in zip(axes, ('nll', 'accuracy')):
        ax.plot(points['position'], points[score], style,
                color=plots.WONG[number % len(plots.WONG)], linewidth=1.5,
                label=f'{line}, {images}')
  plots.style_axes(axes[0], 'Loss along lines', 'position', 'NLL, nats')
  plots.style_axes(axes[1], 'Accuracy along lines', 'position', 'accuracy')
  axes[1].legend(fontsize=7.5, frameon=False, loc='center left',
                 bbox_to_anchor=(1., 0.5))
  return plots.to_png(figure)


def plane(table: pd.DataFrame, coordinates: np.ndarray) -> bytes:
  """Loss in the plane, and agreement with each of its three solutions."""
  xs, ys = np.unique(table['x']), np.unique(table['y'])
  figure = plots.make_canvas(11.2, 9.)
  panels = [('test_nll', 'test NLL, nats, log colours')] + [
      (f'agreement_{i}', f'share of test labels like run {i}')
      for i in range(3)]
  for ax, (column, title) in zip(figure.subplots(2, 2).ravel(), panels):
    values = table[column].to_numpy().reshape(len(xs), len(ys)).T
    if column == 'test_nll':
      levels = np.geomspace(values.min(), values.max(), 15)
      drawn = ax.contourf(xs, ys, values, levels, cmap='viridis',
                          norm='log')
    else:
      # One scale for the three: it starts at the least agreement of all.
      levels = np.linspace(table[[name for name, _ in panels[1:]]].min(
          axis=None), 1., 13)
      drawn = ax.contourf(xs, ys, values, levels, cmap='viridis')
    bar = figure.colorbar(drawn, ax=ax, shrink=0.85, format='%.2f')
    if column == 'test_nll':
      bar.ax.set_yticks(levels[::2], [f'{v:.2g}' for v in levels[::2]])
      bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8)
    ax.plot(*coordinates.T, '*', color='white', markeredgecolor='black',
            markersize=14)
    for i, (x, y) in enumerate(coordinates):
      ax.annotate(f'run {i}', (x, y), xytext=(6, 6), color='black', fontsize=9,
                  textcoords='offset points',
                  bbox={'facecolor': 'white', 'alpha': 0.8, 'pad': 1.5,
                        'edgecolor': 'none'})
    plots.style_axes(ax, title, 'distance of weights', 'distance of weights')
    ax.set_aspect('equal')
    ax.grid(False)
  return plots.to_png(figure)


def overlaps(found: hard_examples.HardExamples) -> bytes:
  """Jaccard overlap of errors across epochs and inits, and the confusions."""
  figure = plots.make_canvas(12.6, 4.)
  axes = figure.subplots(1, 3)
  _matrix(figure, axes[0], found.epoch_overlap,
          'overlap of errors of run 0', 'epoch', vmin=0., vmax=1.)
  _matrix(figure, axes[1], _without_diagonal(found.init_overlap),
          'overlap of errors of runs', 'run')
  errors = found.confusions[-1].copy()
  np.fill_diagonal(errors, 0)
  _matrix(figure, axes[2], errors, 'errors after the last epoch, whole runs',
          '')
  axes[2].set_xlabel('predicted class', fontsize=9)
  axes[2].set_ylabel('class', fontsize=9)
  return plots.to_png(figure)


def hard_images(images: image_data.ImageData, losses: np.ndarray,
                predicted: np.ndarray, num: int) -> bytes:
  """The test images of the highest loss.

  Args:
    images: of the test set.
    losses: mean over runs, [N].
    predicted: class of each run, [K, N].
    num: how many images.
  """
  order = np.argsort(-losses, kind='stable')[:num]
  columns = 8
  num_rows = -(-len(order) // columns)
  figure = plots.make_canvas(10., 0.5 + 1.5 * num_rows)
  figure.suptitle('Test images of the highest loss: class, predicted classes '
                  f'of {len(predicted)} runs, mean loss', fontsize=10)
  for ax in (grid := figure.subplots(num_rows, columns,
                                     squeeze=False)).ravel():
    ax.axis('off')
  for ax, row in zip(grid.ravel(), order):
    image = images.images[row]
    ax.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap='gray')
    ax.set_title(f'{images.labels[row]}: {votes(predicted[:, row])}\n'
                 f'{losses[row]:.2f} nats', fontsize=7.5)
  return plots.to_png(figure)


def votes(predicted: Sequence[int] | np.ndarray) -> str:
  """Predicted classes with how many runs predict them, as '8 x7 3 x3'."""
  classes, counts = np.unique(predicted, return_counts=True)
  order = np.argsort(-counts, kind='stable')
  return ' '.join(f'{classes[i]} x{counts[i]}' for i in order[:3])


def make_all(parts: Mapping[str, bytes]) -> dict[str, bytes]:
  """File names of pictures by their names."""
  return {f'{name}.png': picture for name, picture in parts.items()}
