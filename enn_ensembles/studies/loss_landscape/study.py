"""The whole study: runs, parts 1 to 6, files.

Fort, Hu & Lakshminarayanan 2019, "Deep ensembles: a loss landscape perspective"
(arXiv 1912.02757).
"""

from collections.abc import Callable
import pathlib
import time
from typing import TypeVar

import numpy as np
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.problems import image_classification
from enn_ensembles.report import csv_files
from enn_ensembles.studies.loss_landscape import ensembles
from enn_ensembles.studies.loss_landscape import formulas
from enn_ensembles.studies.loss_landscape import hard_examples
from enn_ensembles.studies.loss_landscape import page
from enn_ensembles.studies.loss_landscape import pictures
from enn_ensembles.studies.loss_landscape import settings as settings_lib
from enn_ensembles.studies.loss_landscape import subspaces
from enn_ensembles.studies.loss_landscape import surfaces
from enn_ensembles.studies.loss_landscape import trajectories
from enn_ensembles.studies.loss_landscape import verdicts

_T = TypeVar('_T')


def run_study(settings: settings_lib.LandscapeSettings,
              problem: image_classification.ImageClassificationProblem,
              output_dir: files.PathLike, snapshots_dir: files.PathLike,
              say: Callable[[str], None] = print) -> dict[str, pathlib.Path]:
  """Runs the study and writes its files.

  Args:
    settings: of the study.
    problem: what the networks learn.
    output_dir: folder of tables, pictures and the page.
    snapshots_dir: folder of the runs' array files; found again there.
    say: is told what is done.

  Returns:
    File name -> path.

  Raises:
    ValueError: a folder cannot be written to, the problem has no validation
      images, or the network does not fit the images.
  """
  if problem.validation is None:
    raise ValueError('num_val must be at least 1: validation images judge '
                     'random directions.')
  folder = files.make_folder(output_dir, 'output_dir')
  kept = files.make_folder(snapshots_dir, 'snapshots_dir')
  seconds: dict[str, float] = {}

  def timed(part: str, make: Callable[[], _T]) -> _T:
    start = time.perf_counter()
    found = make()
    seconds[part] = time.perf_counter() - start
    say(f'{part}: {seconds[part]:.1f} s')
    return found

  prior = problem.prior
  forward = trajectories.Forward(settings.training.make_body(prior),
                                 prior.input_shape)
  runs = timed('runs', lambda: trajectories.get_runs(
      settings.training, problem, forward, settings.num_inits,
      settings.num_trajectories, settings.num_last, kept, say))
  whole = runs[:settings.num_trajectories]

  along, across = timed('similarity', lambda: (
      surfaces.similarity(forward, runs[0].weights, runs[0].logits),
      surfaces.similarity(forward, np.stack([run.weights[-1] for run in runs]),
                          np.stack([run.logits[-1] for run in runs]))))
  scored = timed('ensembles', lambda: ensembles.score_ensembles(
      settings, problem, forward, runs))
  groups = [(f'run {i}', run.log_probs) for i, run in enumerate(whole)]
  embedded = timed('embedding', lambda: (
      surfaces.embed(settings, groups),
      surfaces.embed(settings, groups + [
          (name, forward.log_probs(vectors, problem.x_test))
          for name, vectors in scored.samples.items()])))
  plane = timed('diversity', lambda: subspaces.plane_table(
      settings, problem, forward, runs))
  lines = timed('lines', lambda: surfaces.line_table(
      settings, problem, forward, whole))
  grid, corners = timed('plane', lambda: surfaces.plane_table(
      settings, problem, forward, whole))
  hard = timed('hard examples', lambda: hard_examples.find(
      runs, settings.num_trajectories, problem.test.labels))
  shares = subspaces.limit_shares(plane, settings.plane_margin)
  places = subspaces.limit_shares(plane, settings.plane_margin,
                                  from_lower=True)
  judged = verdicts.make_table(shares, places, scored.per_image)

  summary = _summary(along, across, scored, shares, places, lines, hard,
                     settings.num_inits * settings.num_samples)
  finals = np.stack([run.logits[-1].argmax(axis=-1) for run in runs])
  drawn = timed('pictures', lambda: pictures.make_all({
      'similarity': pictures.similarity(along, across),
      'embedding': pictures.embedding(*embedded),
      'ensembles': pictures.by_size(scored.curves),
      'diversity': pictures.diversity_plane(
          plane, settings.plane_margin, problem.test.num_classes),
      'lines': pictures.lines(lines),
      'plane': pictures.plane(grid, corners),
      'overlaps': pictures.overlaps(hard),
      'hard_images': pictures.hard_images(
          problem.test, hard.final_losses, finals, settings.num_hard)}))
  tables = {
      'summary': summary, 'verdicts': judged, 'ensembles': scored.curves,
      'similarity': pd.concat([
          _similarity_table('run 0, epochs', along),
          _similarity_table('inits', across)], ignore_index=True),
      'embedding': pd.concat([
          embedded[0].assign(embedded='runs'),
          embedded[1].assign(embedded='runs and samples')], ignore_index=True),
      'diversity': plane, 'lines': lines, 'plane': grid,
      'overlaps': hard_examples.table(hard),
      'confusions': hard_examples.confusion_table(runs, problem.test.labels),
      'misclassified': hard_examples.misclassified_table(
          runs, problem.test.labels),
      'seconds': pd.DataFrame({'part': list(seconds),
                               'seconds': list(seconds.values())})}
  contents = {
      **{f'{name}.csv': csv_files.table_text(table).encode()
         for name, table in tables.items()}, **drawn,
      'verdicts.md': verdicts.markdown(judged).encode(),
      'hard_examples.html': page.make_page(
          problem.test, whole, hard, settings.num_hard).encode()}
  for name, content in contents.items():
    files.write_atomically(folder / name, content)
  return {name: folder / name for name in contents}


def _similarity_table(among: str, found: surfaces.Similarity) -> pd.DataFrame:
  """A row per pair."""
  first, second = np.triu_indices(len(found.disagreement), 1)
  return pd.DataFrame({
      'among': among, 'first': first, 'second': second,
      'cosine_kernels': found.cosine_kernels[first, second],
      'cosine_all': found.cosine_all[first, second],
      'disagreement': found.disagreement[first, second]})


def _summary(along: surfaces.Similarity, across: surfaces.Similarity,
             scored: ensembles.EnsembleScores, shares: dict[str, np.ndarray],
             places: dict[str, np.ndarray], lines: pd.DataFrame,
             hard: hard_examples.HardExamples,
             num_random: int) -> pd.DataFrame:
  """The numbers that a reader looks for first, a row each."""
  rows: list[tuple[str, float]] = []
  for name in ('cosine_kernels', 'cosine_all', 'disagreement'):
    rows.append((f'run 0, first and last epoch: {name}',
                 getattr(along, name)[0, -1]))
    values = formulas.pair_values(getattr(across, name))
    for which, value in (('least', values.min()), ('mean', values.mean()),
                         ('largest', values.max())):
      rows.append((f'pairs of inits, {which}: {name}', value))
  for method, found in scored.per_image.items():
    for score, values in found.items():
      rows.append((f'{method}, largest: {score}', values.mean()))
  rows.append((f'random directions of {num_random} within the margin',
               scored.num_accurate))
  for what, found in (('diversity / upper limit', shares),
                      ('place between both limits', places)):
    for method, values in found.items():
      measured = values[np.isfinite(values)]
      rows.append((f'{method}: {what}',
                   measured.mean() if len(measured) else np.nan))
  for (line, images), found in lines.groupby(['line', 'images'], sort=False):
    rows.append((f'{line}, {images}: barrier, nats', found['barrier'].iloc[0]))
  for name, overlap, chance in (
      ('epochs of run 0, the last two', hard.epoch_overlap[-2:, -2:],
       hard.epoch_chance[-2:, -2:]),
      ('pairs of inits, mean', hard.init_overlap, hard.init_chance)):
    rows.append((f'{name}: Jaccard overlap of errors',
                 formulas.pair_values(overlap).mean()))
    rows.append((f'{name}: Jaccard overlap of random sets',
                 formulas.pair_values(chance).mean()))
  rows.append(('test images that all inits get wrong', hard.num_wrong_by_all))
  rows.append(('test images that some init gets wrong', hard.num_wrong_by_any))
  return pd.DataFrame(rows, columns=['what', 'value']).astype({'value': float})
