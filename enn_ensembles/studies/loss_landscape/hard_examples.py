"""Which test images networks get wrong, and whether they are the same ones."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses

import numpy as np
import pandas as pd

from enn_ensembles.scoring import categorical
from enn_ensembles.studies.loss_landscape import formulas
from enn_ensembles.studies.loss_landscape import trajectories


@dataclasses.dataclass(frozen=True, eq=False)
class HardExamples:
  """Errors by epoch and by run.

  Attributes:
    epoch_overlap: Jaccard overlap of the images that the first run gets wrong
      after two epochs, [E + 1, E + 1].
    epoch_chance: that of random sets of the same sizes.
    init_overlap: of the images that two runs get wrong at their ends, [K, K].
    init_chance: that of random sets of the same sizes.
    num_wrong_by_all: test images that all runs get wrong.
    num_wrong_by_any: test images that some run gets wrong.
    losses: loss of each test image, mean over whole runs, [E + 1, N], nats.
    confusions: summed over whole runs, int [E + 1, C, C], class by prediction.
    final_losses: mean over all runs at their ends, [N].
  """
  epoch_overlap: np.ndarray
  epoch_chance: np.ndarray
  init_overlap: np.ndarray
  init_chance: np.ndarray
  num_wrong_by_all: int
  num_wrong_by_any: int
  losses: np.ndarray
  confusions: np.ndarray
  final_losses: np.ndarray


def find(runs: Sequence[trajectories.Run], num_whole: int,
         labels: np.ndarray) -> HardExamples:
  """From the runs and the labels [N]; the first num_whole are whole."""
  whole = runs[:num_whole]
  num_classes = runs[0].logits.shape[-1]
  by_epoch = runs[0].logits.argmax(axis=-1) != labels
  by_init = np.stack([run.logits[-1].argmax(axis=-1) != labels for run in runs])
  losses = -np.mean([categorical.label_log_probs(run.log_probs, labels)
                     for run in whole], axis=0)
  confusions = np.array([
      sum(formulas.confusion_matrix(labels, run.logits[s].argmax(axis=-1),
                                    num_classes) for run in whole)
      for s in range(len(losses))])
  final = -np.mean([categorical.label_log_probs(run.log_probs[-1], labels)
                    for run in runs], axis=0)
  return HardExamples(
      formulas.jaccard_matrix(by_epoch),
      formulas.expected_jaccard_matrix(by_epoch),
      formulas.jaccard_matrix(by_init),
      formulas.expected_jaccard_matrix(by_init),
      int(np.all(by_init, axis=0).sum()), int(np.any(by_init, axis=0).sum()),
      losses, confusions, final)


def table(found: HardExamples) -> pd.DataFrame:
  """A row per pair: kind ('epochs' or 'inits'), first, second, both values."""
  tables = []
  for kind, overlap, chance in (
      ('epochs', found.epoch_overlap, found.epoch_chance),
      ('inits', found.init_overlap, found.init_chance)):
    first, second = np.triu_indices(len(overlap), 1)
    tables.append(pd.DataFrame({
        'kind': kind, 'first': first, 'second': second,
        'jaccard': overlap[first, second], 'chance': chance[first, second]}))
  return pd.concat(tables, ignore_index=True)


def confusion_table(runs: Sequence[trajectories.Run],
                    labels: np.ndarray) -> pd.DataFrame:
  """A row per run, snapshot and class.

  Args:
    runs: whole ones or the ends of some: every snapshot that they keep counts.
    labels: of the test images, int [N].

  Returns:
    init (number of the run), epoch, class, and predicted_0, predicted_1, ...:
    test images of this class by what the network predicts.
  """
  lines = []
  for init, epoch, predicted, num_classes in _snapshots(runs):
    found = formulas.confusion_matrix(labels, predicted, num_classes)
    lines += [{'init': init, 'epoch': epoch, 'class': label, **{
        f'predicted_{other}': int(num) for other, num in enumerate(counts)}}
              for label, counts in enumerate(found)]
  return pd.DataFrame(lines)


def misclassified_table(runs: Sequence[trajectories.Run],
                        labels: np.ndarray) -> pd.DataFrame:
  """A row per run and snapshot: which test images the network gets wrong.

  Args:
    runs: as in `confusion_table`.
    labels: of the test images, int [N].

  Returns:
    init (number of the run), epoch, num_wrong, and images: their numbers among
    the test images, increasing, with spaces between.
  """
  lines = []
  for init, epoch, predicted, _ in _snapshots(runs):
    wrong = np.flatnonzero(predicted != labels).tolist()
    lines.append({'init': init, 'epoch': epoch, 'num_wrong': len(wrong),
                  'images': ' '.join(map(str, wrong))})
  return pd.DataFrame(lines)


def _snapshots(runs: Sequence[trajectories.Run]
               ) -> Iterator[tuple[int, int, np.ndarray, int]]:
  """(run, epoch, predicted classes [N], C) of all snapshots that are kept."""
  for init, run in enumerate(runs):
    for epoch, logits in zip(run.epochs.tolist(), run.logits, strict=True):
      yield init, epoch, logits.argmax(axis=-1), logits.shape[-1]
