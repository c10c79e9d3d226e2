"""What a line of the table of claims is about, and how it gets its number."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from enn_ensembles.report import comparison
from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.scoring import table
from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.studies.layer_ensembles import verdicts

_text = text.short_number
# A line that is not measured, or one that waits for its verdict.
Found = verdicts.Line | verdicts.Measured


@dataclasses.dataclass(frozen=True)
class Scope:
  """What a line is about.

  Attributes:
    rows: as `columns.read_results` gives them.
    reference: of the scores.
    score: the score.
  """
  rows: Sequence[comparison.Row]
  reference: str
  score: str

  def compare(self, wanted: Sequence[comparison.Setting],
              with_curve: Sequence[comparison.Setting] = ()
              ) -> comparison.Comparison:
    """Agent settings on the problems that all of them have."""
    return comparison.compare(
        self.rows, wanted, ranking=settings.ranking(self.reference),
        score=self.score, with_curve=with_curve)

  def measured(self, compared: comparison.Comparison,
               found: statistics.Interval, judge: verdicts.Judge, why: str,
               geometric: float | None = None, log: bool = True,
               **fields: Any) -> verdicts.Measured:
    """A line with its number, which waits for its verdict."""
    def number(value):
      return None if value is None else float(value)
    privileges = {
        setting.selection: table.PRIVILEGED_SELECTIONS[setting.selection]
        for setting in compared.settings
        if setting.selection in table.PRIVILEGED_SELECTIONS}
    line = verdicts.Line(
        verdict='', why=f'{why}, over {len(compared.cells)} cells and '
        f'{len(compared.seeds)} seeds.' + ''.join(
            f' Selection {name}: {privilege}.'
            for name, privilege in privileges.items()),
        reference=self.reference, score=self.score, ours=number(found.value),
        low=number(found.low), high=number(found.high),
        geometric=number(geometric),
        num_cells=len(compared.cells), num_seeds=len(compared.seeds), **fields)
    return verdicts.Measured(line, found, judge, log)

  def measured_ratio(self, compared: comparison.Comparison,
                     judge: verdicts.Judge, above: np.ndarray,
                     below: np.ndarray, about: tuple[str, str],
                     **fields: Any) -> verdicts.Measured:
    """A line on the mean of one array of scores over that of another.

    Args:
      compared: the agent settings.
      judge: of the ratio.
      above: scores [cells, seeds].
      below: scores [cells, seeds].
      about: what `above` and `below` are scores of.
      **fields: of the line.
    """
    found = statistics.ratio_interval(above, below)
    return self.measured(
        compared, found, judge,
        f'mean {self.score} is {_text(np.mean(above))} for {about[0]} and '
        f'{_text(np.mean(below))} for {about[1]}, a ratio of '
        f'{verdicts.interval_text(found)}',
        statistics.geometric_ratio(above, below).value, **fields)

  def curve(self, setting: comparison.Setting, *others: comparison.Setting
            ) -> 'Curve':
    """A setting's scores by number of samples, where the others are, too.

    Raises:
      SettingsError: there are no such rows.
    """
    compared = self.compare([setting, *others], [setting])
    return Curve(compared, setting, compared.curve(setting, self.score))

  def not_measured(self, error: Exception, **fields: Any) -> verdicts.Line:
    """A line whose rows are missing."""
    return verdicts.Line(
        verdict=verdicts.NOT_MEASURED, why=str(error),
        reference=self.reference, score=self.score, **fields)


@dataclasses.dataclass(frozen=True)
class Curve:
  """Scores of an agent setting by number of samples.

  Attributes:
    compared: the setting, and others, on the problems that all of them have.
    setting: the setting.
    values: [cells, seeds, P]; the last is of all samples.
  """
  compared: comparison.Comparison
  setting: comparison.Setting
  values: np.ndarray

  @property
  def num_samples(self) -> int:
    """P."""
    return self.values.shape[-1]

  def first(self, num: int) -> np.ndarray:
    """Scores of the first samples in their order, [cells, seeds].

    Raises:
      SettingsError: there are fewer.
    """
    if num > self.num_samples:
      raise comparison.SettingsError(
          f'the curve of {self.setting} has {self.num_samples} samples.')
    return self.values[..., num - 1]

  def chosen_num_samples(self) -> int:
    """The P with the best mean validation score, one for all problems.

    Raises:
      SettingsError: the curve has no validation scores.
    """
    return statistics.best_num_samples(
        self.compared.curve(self.setting, 'val_score'))


def ratio_line(scope: Scope, worse: comparison.Setting,
               better: comparison.Setting,
               judge: verdicts.Judge, **fields: Any) -> Found:
  """A line on mean KL of `worse` over mean KL of `better`."""
  try:
    compared = scope.compare([worse, better])
  except comparison.SettingsError as error:
    return scope.not_measured(error, **fields)
  return scope.measured_ratio(
      compared, judge, compared.values(worse, scope.score),
      compared.values(better, scope.score), (str(worse), str(better)), **fields)
