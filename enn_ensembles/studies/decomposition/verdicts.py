"""What is claimed of aleatoric and epistemic uncertainty, judged by rules.

The rules were stated before the numbers. Intervals are Student's t, 95 %, over
seeds, and lines are not corrected for their number.

1. The definitions give what they must on cases that are known: 'holds' if all
   do.
2. AU follows the label noise: AU at the largest share of flipped labels less AU
   at none, mean over sizes. 'holds' above 0, 'fails' below 0.
3. AU does not follow the size of the training set. The table of AU by size and
   noise has a share of its variation (sum of squares about the mean) that comes
   from the noise alone (the means over sizes). What is left over: 'holds' below
   LARGEST_SHARE, 'fails' above it.
4. EU falls with the size: EU at the smallest size less EU at the largest, mean
   over shares. 'holds' above 0, 'fails' below 0.
5. EU does not follow the label noise: as 3, with the size in its place.
   The disentanglement error is the mean of 3's and 5's: 0 where each part
   answers to its own cause alone.
6. EU answers to the noise as the exact posterior does (testbed): log std at the
   largest epsilon less that at the smallest, less the same of the posterior.
   'holds' within +- CLOSE, 'fails' outside of it.
7. The parts of the variance are the true ones (testbed, noise that depends on
   the input): root mean square error of log std, of EU less the floor that as
   many draws of the exact posterior have. 'holds' below CLOSE, 'fails' above
   it. (The floor was added after the first numbers: it is 0.27 for ten draws.)
8. Another aggregation is better than the mean of probabilities: its NLL less
   the mean's, at the largest size. 'better' below 0, 'worse' above 0.
9. Bagging is better than initial weights alone at equal K: as 8.
10. A mixture of experts is better than an ensemble of as many networks: as 8.
11. Ensembles, and dropout, are more robust than a single network: accuracy less
   the single network's. 'holds' above 0, 'fails' below 0.
12. Another aggregation is better than the mean of probabilities on labels with
   the noise of the training set: as 8, by the expected NLL of flipped labels.
   (8 is about labels without noise. The rule was added before its numbers.)
Whatever else is 'undecided', and so is one seed.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import statistics
from enn_ensembles.studies import verdict_tables
from enn_ensembles.studies.decomposition import definitions
from enn_ensembles.studies.decomposition import images
from enn_ensembles.studies.decomposition import regression

LARGEST_SHARE = 0.25
CLOSE = 0.2  # Of a logarithm: 22 % of a std.

HOLDS, FAILS, UNDECIDED = 'holds', 'fails', 'undecided'
BETTER, WORSE = 'better', 'worse'

CLAIMS = {
    1: 'definitions give what they must',
    2: 'AU follows the label noise',
    3: 'AU does not follow the size of the training set',
    4: 'EU falls with the size of the training set',
    5: 'EU does not follow the label noise',
    6: 'EU answers to the noise as the exact posterior does',
    7: 'the parts of the variance are the true ones',
    8: 'another aggregation is better than the mean of probabilities',
    9: 'bagging is better than initial weights alone',
    10: 'a mixture of experts is better than an ensemble of as many networks',
    11: 'ensembles and dropout are more robust than a single network',
    12: 'another aggregation is better on labels with the noise of training',
}


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of the table of verdicts.

  Attributes:
    claim: its number, a key of CLAIMS.
    where: the data, and the cell of it.
    who: the agent, or the rule of aggregation.
    verdict: by the rules.
    measure: what `value` is.
    value: the number.
    low: lower end of its interval; None where it has none.
    high: upper end.
  """
  claim: int
  where: str
  who: str
  verdict: str
  measure: str
  value: float
  low: float | None = None
  high: float | None = None


def judge_sign(found: statistics.Interval, above: str = HOLDS,
               below: str = FAILS) -> str:
  """One verdict where the interval is above 0, another where it is below."""
  return judge_between(found, 0., 0., above, below)


def judge_between(found: statistics.Interval, low: float, high: float,
                  above: str, below: str) -> str:
  """One verdict for intervals above `high`, another for those below `low`."""
  if not found.is_known:
    return UNDECIDED
  if found.low > high:
    return above
  return below if found.high < low else UNDECIDED


def judge_close(found: statistics.Interval) -> str:
  """Whether an interval lies within +- CLOSE, or outside of it."""
  if not found.is_known:
    return UNDECIDED
  if -CLOSE < found.low and found.high < CLOSE:
    return HOLDS
  return FAILS if found.low > CLOSE or found.high < -CLOSE else UNDECIDED


def leftover_share(table: np.ndarray) -> float:
  """Share of a table's variation that its columns' means do not explain.

  Args:
    table: [other cause, own cause].

  Returns:
    From 0 to 1; nan for a table without variation.
  """
  centred = table - table.mean()
  total = np.sum(centred**2)
  own = len(table) * np.sum(centred.mean(axis=0)**2)
  with np.errstate(invalid='ignore'):
    return float(1. - own / total)


def _line(claim: int, where: str, who: str, measure: str, values: np.ndarray,
          judge: Any) -> Line:
  found = statistics.mean_interval(np.asarray(values, np.float64)[None])
  ends = (None if part is None else float(part)
          for part in (found.low, found.high))
  return Line(claim, where, who, judge(found), measure, float(found.value),
              *ends)


def judge_definitions() -> list[Line]:
  """Claim 1."""
  return [Line(1, check.case, check.quantity, HOLDS if check.holds else FAILS,
               'found', check.found) for check in definitions.check_all()]


def judge_grid(grid: pd.DataFrame) -> list[Line]:
  """Claims 2 to 5, 8, 9 and 12."""
  lines = []
  whole = grid.loc[grid['aggregation'] == 'none']
  for (dataset, agent), group in whole.groupby(['dataset', 'agent'],
                                               sort=False):
    tables = {part: _tables(group, f'{part}_uncertainty')
              for part in ('aleatoric', 'epistemic')}
    noise = [table[:, -1].mean() - table[:, 0].mean()
             for table in tables['aleatoric']]
    size = [table[0].mean() - table[-1].mean()
            for table in tables['epistemic']]
    shares = {
        3: [leftover_share(table) for table in tables['aleatoric']],
        5: [leftover_share(table.T) for table in tables['epistemic']]}
    lines += [
        _line(2, dataset, agent, 'AU of most noise less of none, nats', noise,
              judge_sign),
        _line(4, dataset, agent, 'EU of fewest labels less of most, nats', size,
              judge_sign)]
    lines += [_line(claim, dataset, agent, 'share of variation left over',
                    np.array(values),
                    lambda found: judge_between(found, LARGEST_SHARE,
                                                LARGEST_SHARE, FAILS, HOLDS))
              for claim, values in shares.items()]
  largest = grid.loc[grid['size'] == grid.groupby('dataset')['size'].transform(
      'max')]
  for (dataset, share), group in largest.groupby(['dataset', 'share'],
                                                 sort=False):
    where = f'{dataset}, {share:.0%} flipped'
    of_inits = group.loc[group['agent'] == 'ensemble']
    for claim, score, name in ((8, 'nll', 'NLL'),
                               (12, 'flipped_nll', 'NLL of flipped labels')):
      nll = of_inits.pivot(index='seed', columns='aggregation', values=score)
      if claim == 8 or share > 0.:
        lines += [_line(claim, where, rule, f"{name} less the mean's, nats",
                        (nll[rule] - nll['none']).to_numpy(), _judge_lower)
                  for rule in images.AGGREGATIONS[1:] if rule in nll]
    nll = group.loc[group['aggregation'] == 'none'].pivot(
        index='seed', columns='agent', values='nll')
    if {'bagging', 'ensemble'} <= set(nll):
      lines.append(_line(9, where, 'bagging', "NLL less the ensemble's, nats",
                         (nll['bagging'] - nll['ensemble']).to_numpy(),
                         _judge_lower))
  return lines


def _judge_lower(found: statistics.Interval) -> str:
  return judge_sign(found, WORSE, BETTER)


def _tables(group: pd.DataFrame, score: str) -> list[np.ndarray]:
  """Values by (size, share), a table per seed."""
  return [of_seed.pivot(index='size', columns='share',
                        values=score).to_numpy()
          for _, of_seed in group.groupby('seed')]


def disentanglement_errors(grid: pd.DataFrame) -> pd.DataFrame:
  """A line per data set and agent: error, shares and correlations.

  `cell_correlation` is Pearson's of AU and EU over cells of the grid,
  `point_correlation` Spearman's over test images, mean over cells.
  """
  found = []
  whole = grid.loc[grid['aggregation'] == 'none']
  for (dataset, agent), group in whole.groupby(['dataset', 'agent'],
                                               sort=False):
    aleatoric, epistemic = (_tables(group, f'{part}_uncertainty')
                            for part in ('aleatoric', 'epistemic'))
    shares = np.array([[leftover_share(a), leftover_share(e.T)]
                       for a, e in zip(aleatoric, epistemic)])
    found.append({
        'dataset': dataset, 'agent': agent,
        'disentanglement_error': float(shares.mean()),
        'aleatoric_left_over': float(shares[:, 0].mean()),
        'epistemic_left_over': float(shares[:, 1].mean()),
        'cell_correlation': float(np.mean([
            np.corrcoef(a.ravel(), e.ravel())[0, 1]
            for a, e in zip(aleatoric, epistemic)])),
        'point_correlation': float(group['part_correlation'].mean())})
  return pd.DataFrame(found)


def judge_response(response: pd.DataFrame) -> list[Line]:
  """Claim 6."""
  lines = []
  whole = response.loc[response['aggregation'] == 'none']
  for (num_train, agent), group in whole.groupby(['num_train', 'agent'],
                                                 sort=False):
    excess = group.assign(excess=group['log_std'] - group['log_std_exact'])
    table = excess.pivot(index='seed', columns='noise_std', values='excess')
    lines.append(_line(6, f'testbed, T = {num_train}', agent,
                       "response of log EU std less the posterior's",
                       (table.iloc[:, -1] - table.iloc[:, 0]).to_numpy(),
                       judge_close))
  return lines


def judge_split(split: pd.DataFrame) -> list[Line]:
  """Claim 7."""
  lines = []
  kept = split.loc[split['agent'].isin(list(regression.SPLIT_AGENTS))]
  for part in ('aleatoric', 'epistemic'):
    for (num_train, noise_std, agent), group in kept.groupby(
        ['num_train', 'noise_std', 'agent'], sort=False):
      values, measure = group[f'{part}_error'], 'RMSE of log std'
      if part == 'epistemic':
        values = values - group['epistemic_error_floor']
        measure += ' less its floor'
      lines.append(_line(
          7, f'testbed, T = {num_train}, ε = {noise_std:g}',
          f'{agent}: {part}', measure, values.to_numpy(),
          lambda found: judge_between(found, CLOSE, CLOSE, FAILS, HOLDS)))
  return lines


def judge_experts(experts: pd.DataFrame) -> list[Line]:
  """Claim 10."""
  lines = []
  for dataset, group in experts.groupby('dataset', sort=False):
    nll = group.pivot(index='seed', columns='agent', values='nll')
    lines += [_line(10, dataset, name, "NLL less the ensemble's, nats",
                    (nll[name] - nll['ensemble']).to_numpy(), _judge_lower)
              for name in (images.SOFT, images.TOP) if name in nll]
  return lines


def judge_robustness(robustness: pd.DataFrame) -> list[Line]:
  """Claim 11."""
  lines = []
  attacked = robustness.loc[robustness['attack'] != 'none']
  for (dataset, attack, epsilon), group in attacked.groupby(
      ['dataset', 'attack', 'epsilon'], sort=False):
    table = group.pivot(index='seed', columns='agent', values='accuracy')
    if 'single' not in table:  # Its own attack is the comparison.
      own = attacked.loc[(attacked['dataset'] == dataset)
                         & (attacked['attack'] == 'pgd')
                         & (attacked['epsilon'] == epsilon)
                         & (attacked['agent'] == 'single')]
      table['single'] = own.set_index('seed')['accuracy']
    lines += [_line(11, f'{dataset}, {attack}, ε = {epsilon:g}', agent,
                    "accuracy less the single network's",
                    (table[agent] - table['single']).to_numpy(), judge_sign)
              for agent in table if agent != 'single']
  return lines


_JUDGES = {'grid': judge_grid, 'response': judge_response,
           'split': judge_split, 'experts': judge_experts,
           'robustness': judge_robustness}


def judge(tables: Mapping[str, pd.DataFrame]) -> list[Line]:
  """All lines by claim, those of definitions and of each part that is there.

  Args:
    tables: name of a part of the study -> its table.
  """
  lines = judge_definitions()
  for part, measured in tables.items():
    lines += _JUDGES[part](measured)
  return sorted(lines, key=lambda line: line.claim)


def text(lines: Sequence[Line]) -> str:
  """The verdicts as Markdown."""
  return verdict_tables.markdown(
      'lines', {f'{claim}. {CLAIMS[claim]}': verdict_tables.counts_text(
          verdict_tables.counts(lines, claim))
                for claim in sorted({line.claim for line in lines})},
      ('claim', 'where', 'who', 'verdict', 'measure', 'value', '95 %'),
      [(line.claim, line.where, line.who, line.verdict, line.measure,
        f'{line.value:.3g}', verdict_tables.interval_text(line))
       for line in lines], right=[5])
