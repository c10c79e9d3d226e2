"""The whole study: runs, parts 1 to 6, files.

Fort, Hu & Lakshminarayanan 2019, "Deep ensembles: a loss landscape perspective"
(arXiv 1912.02757).
"""

from collections.abc import Callable
from collections.abc import Sequence
import pathlib
import time
from typing import NamedTuple
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


class _Clock:
  """Seconds of the parts of the study, which are told as they are done."""

  def __init__(self, say: Callable[[str], None]):
    self.seconds: dict[str, float] = {}
    self._say = say

  def timed(self, part: str, make: Callable[[], _T]) -> _T:
    """What `make` returns."""
    start = time.perf_counter()
    found = make()
    self.seconds[part] = time.perf_counter() - start
    self._say(f'{part}: {self.seconds[part]:.1f} s')
    return found


class _Measured(NamedTuple):
  """What is measured of the runs.

  Attributes:
    runs: all of them.
    along: similarity of the epochs of the first run.
    across: of the ends of all runs.
    scored: ensembles by size.
    embedded: two components of runs; of runs and samples.
    plane: diversity and accuracy of functions around the ends.
    lines: loss between ends.
    grid: loss on a plane.
    corners: the ends of three runs in that plane, [3, 2].
    hard: images that runs get wrong.
    shares: where diversity stands, as a share of its upper limit.
    places: the same between both limits.
  """
  runs: Sequence[trajectories.Run]
  along: surfaces.Similarity
  across: surfaces.Similarity
  scored: ensembles.EnsembleScores
  embedded: tuple[pd.DataFrame, pd.DataFrame]
  plane: pd.DataFrame
  lines: pd.DataFrame
  grid: pd.DataFrame
  corners: np.ndarray
  hard: hard_examples.HardExamples
  shares: dict[str, np.ndarray]
  places: dict[str, np.ndarray]


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
  clock = _Clock(say)
  measured = _measure(settings, problem, kept, clock, say)
  judged = verdicts.make_table(measured.shares, measured.places,
                               measured.scored.per_image)
  drawn = clock.timed('pictures', lambda: _draw(settings, problem, measured))
  tables = {**_tables(settings, problem, measured, judged), 'seconds':
            pd.DataFrame({'part': list(clock.seconds),
                          'seconds': list(clock.seconds.values())})}
  contents = {
      **{f'{name}.csv': csv_files.table_text(table).encode()
         for name, table in tables.items()}, **drawn,
      'verdicts.md': verdicts.markdown(judged).encode(),
      'hard_examples.html': page.make_page(
          problem.test, measured.runs[:settings.num_trajectories],
          measured.hard, settings.num_hard).encode()}
  for name, content in contents.items():
    files.write_atomically(folder / name, content)
  return {name: folder / name for name in contents}


def _measure(settings: settings_lib.LandscapeSettings,
             problem: image_classification.ImageClassificationProblem,
             kept: pathlib.Path, clock: _Clock,
             say: Callable[[str], None]) -> _Measured:
  """Trains what `kept` does not hold, and measures all parts."""
  prior = problem.prior
  forward = trajectories.Forward(settings.training.make_body(prior),
                                 prior.input_shape)
  runs = clock.timed('runs', lambda: trajectories.get_runs(
      settings.training, problem, forward, settings.num_inits,
      settings.num_trajectories, settings.num_last, kept, say))
  whole = runs[:settings.num_trajectories]

  along, across = clock.timed('similarity', lambda: (
      surfaces.similarity(forward, runs[0].weights, runs[0].logits),
      surfaces.similarity(forward, np.stack([run.weights[-1] for run in runs]),
                          np.stack([run.logits[-1] for run in runs]))))
  scored = clock.timed('ensembles', lambda: ensembles.score_ensembles(
      settings, problem, forward, runs))
  groups = [(f'run {i}', run.log_probs) for i, run in enumerate(whole)]
  embedded = clock.timed('embedding', lambda: (
      surfaces.embed(settings, groups),
      surfaces.embed(settings, groups + [
          (name, forward.log_probs(vectors, problem.x_test))
          for name, vectors in scored.samples.items()])))
  plane = clock.timed('diversity', lambda: subspaces.plane_table(
      settings, problem, forward, runs))
  lines = clock.timed('lines', lambda: surfaces.line_table(
      settings, problem, forward, whole))
  grid, corners = clock.timed('plane', lambda: surfaces.plane_table(
      settings, problem, forward, whole))
  hard = clock.timed('hard examples', lambda: hard_examples.find(
      runs, settings.num_trajectories, problem.test.labels))
  return _Measured(
      runs, along, across, scored, embedded, plane, lines, grid, corners, hard,
      subspaces.limit_shares(plane, settings.plane_margin),
      subspaces.limit_shares(plane, settings.plane_margin, from_lower=True))


def _draw(settings: settings_lib.LandscapeSettings,
          problem: image_classification.ImageClassificationProblem,
          measured: _Measured) -> dict[str, bytes]:
  """All pictures, by name of file."""
  finals = np.stack([run.logits[-1].argmax(axis=-1) for run in measured.runs])
  return pictures.make_all({
      'similarity': pictures.similarity(measured.along, measured.across),
      'embedding': pictures.embedding(*measured.embedded),
      'ensembles': pictures.by_size(measured.scored.curves),
      'diversity': pictures.diversity_plane(
          measured.plane, settings.plane_margin, problem.test.num_classes),
      'lines': pictures.lines(measured.lines),
      'plane': pictures.plane(measured.grid, measured.corners),
      'overlaps': pictures.overlaps(measured.hard),
      'hard_images': pictures.hard_images(
          problem.test, measured.hard.final_losses, finals,
          settings.num_hard)})


def _tables(settings: settings_lib.LandscapeSettings,
            problem: image_classification.ImageClassificationProblem,
            measured: _Measured, judged: pd.DataFrame
            ) -> dict[str, pd.DataFrame]:
  """All tables but that of seconds, by name."""
  runs_alone, with_samples = measured.embedded
  return {
      'summary': _summary(measured, settings.num_inits * settings.num_samples),
      'verdicts': judged, 'ensembles': measured.scored.curves,
      'similarity': pd.concat([
          _similarity_table('run 0, epochs', measured.along),
          _similarity_table('inits', measured.across)], ignore_index=True),
      'embedding': pd.concat([
          runs_alone.assign(embedded='runs'),
          with_samples.assign(embedded='runs and samples')],
          ignore_index=True),
      'diversity': measured.plane, 'lines': measured.lines,
      'plane': measured.grid, 'overlaps': hard_examples.table(measured.hard),
      'confusions': hard_examples.confusion_table(measured.runs,
                                                  problem.test.labels),
      'misclassified': hard_examples.misclassified_table(
          measured.runs, problem.test.labels)}


def _similarity_table(among: str, found: surfaces.Similarity) -> pd.DataFrame:
  """A row per pair."""
  first, second = np.triu_indices(len(found.disagreement), 1)
  return pd.DataFrame({
      'among': among, 'first': first, 'second': second,
      'cosine_kernels': found.cosine_kernels[first, second],
      'cosine_all': found.cosine_all[first, second],
      'disagreement': found.disagreement[first, second]})


def _summary(measured: _Measured, num_random: int) -> pd.DataFrame:
  """The numbers that a reader looks for first, a row each."""
  rows: list[tuple[str, float]] = []
  hard = measured.hard
  for name in ('cosine_kernels', 'cosine_all', 'disagreement'):
    rows.append((f'run 0, first and last epoch: {name}',
                 getattr(measured.along, name)[0, -1]))
    values = formulas.pair_values(getattr(measured.across, name))
    for which, value in (('least', values.min()), ('mean', values.mean()),
                         ('largest', values.max())):
      rows.append((f'pairs of inits, {which}: {name}', value))
  for method, found in measured.scored.per_image.items():
    for score, values in found.items():
      rows.append((f'{method}, largest: {score}', values.mean()))
  rows.append((f'random directions of {num_random} within the margin',
               measured.scored.num_accurate))
  for what, found in (('diversity / upper limit', measured.shares),
                      ('place between both limits', measured.places)):
    for method, values in found.items():
      finite = values[np.isfinite(values)]
      rows.append((f'{method}: {what}',
                   finite.mean() if len(finite) else np.nan))
  for (line, images), found in measured.lines.groupby(
      ['line', 'images'], sort=False):
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
