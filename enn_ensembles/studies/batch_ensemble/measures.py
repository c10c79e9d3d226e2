"""Rows of a sweep as the study's tables.

A setting is an agent setting and how its members are selected; everything is
compared within one data set, on the seeds that are shared, paired by seed.
Intervals are Student's t, 95 %, over seeds. No jax here.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles import results
from enn_ensembles.report import statistics
from enn_ensembles.results import schema
from enn_ensembles.scoring import table
from enn_ensembles.studies.batch_ensemble import equivalence

ONE, DEEP, BATCH = 'map', 'ensemble', 'batch_ensemble'

# Members of the deep ensemble that a method without members is compared with.
NUM_MEMBERS = 4

# What verdicts are about.
JUDGED = ('accuracy', 'nll', 'ece', 'shift_accuracy', 'shift_nll', 'shift_ece',
          'ood_auroc_msp', 'ood_auroc_entropy')

# How alike members are.
DIVERSITY = ('epistemic_uncertainty', 'shift_epistemic_uncertainty',
             'ood_epistemic_uncertainty', 'disagreement', 'shift_disagreement',
             'ood_disagreement', 'logit_correlation', 'weight_cosine',
             'weight_cosine_biases')

# Which method is best on what.
RANKED = (*JUDGED, 'brier', 'ood_auroc_mi', 'aurc', 'dyadic_nll')


# Fields of rows, and of their `cost`, which older rows lack.
COSTS = ('num_params', 'train_seconds', 'evaluate_seconds',
         *results.COST_FIELDS)
# Costs, and the columns that say which settings are efficient by them.
EFFICIENT = {'num_params': 'is_efficient_by_params',
             'train_seconds': 'is_efficient_by_seconds',
             'predict_seconds_per_1000': 'is_efficient_by_predictions',
             'peak_memory_mb': 'is_efficient_by_memory'}


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
  """One agent setting on one data set.

  Attributes:
    label: a short name, one of a kind on its data set.
    rows: seed -> row.
  """
  label: str
  rows: Mapping[int, results.Row]

  @property
  def agent(self) -> str:
    """Name of the agent."""
    return self._first['agent']

  @property
  def selection(self) -> str:
    """How members are selected; 'none' for all of them."""
    return self._first['selection']

  @property
  def num_members(self) -> int | None:
    """K where the agent's config says it."""
    return self._first['agent_config'].get('num_ensemble')

  @property
  def _first(self) -> results.Row:
    return next(iter(self.rows.values()))

  def scores(self, name: str, set_name: str = '') -> dict[int, float]:
    """Seed -> score, of the seeds that have it.

    Args:
      name: of the score.
      set_name: a shifted or other set by its name; '' for what the row's
        scores are of: the test set, or means over sets.
    """
    found = {}
    for seed, row in self.rows.items():
      scores = row['scores'] if not set_name else (
          row['by_set'] or {}).get(set_name, {})
      if name in scores:
        found[seed] = scores[name]
    return found


def read_data_sets(rows: Iterable[results.Row]) -> dict[str, list[Setting]]:
  """The settings of every data set, by the name of the data set.

  Rows of other problems than classification, failed rows and rows that sample
  from members that could be enumerated are left out.

  Raises:
    ValueError: there is no data set with one network, a deep ensemble and a
      BatchEnsemble.
  """
  groups: dict[str, list[results.Row]] = {}
  for row in rows:
    if row['score_set'] == 'classification' and row['scores'] is not None and (
        row['enumerate_indices']):
      problem = row['problem']
      key = schema.canonical_text([problem['cell'], problem['ranking']])
      groups.setdefault(key, []).append(row)
  found: dict[str, list[Setting]] = {}
  for own in groups.values():
    settings = _make_settings(own)
    if {ONE, DEEP, BATCH} <= {setting.agent for setting in settings}:
      cell = own[0]['problem']['cell']
      name = f'{cell["dataset"]}_n{cell["num_train"]}'
      while name in found:  # Other settings or other bytes of the same data.
        name += '_b'
      found[name] = settings
  if not found:
    raise ValueError(f'results_dir must hold classification rows of {ONE}, '
                     f'{DEEP} and {BATCH} on one data set, got none.')
  return dict(sorted(found.items()))


def _make_settings(rows: Sequence[results.Row]) -> list[Setting]:
  """Settings of the rows of one data set, labelled by what tells them apart."""
  by_setting: dict[tuple[Any, ...], dict[int, results.Row]] = {}
  for row in rows:
    key = (row['agent'], row['agent_id'], row['selection'],
           row['num_enn_samples'] or 0, row['dtype'])
    by_setting.setdefault(key, {})[row['problem']['seed']] = row
  labels = {}
  for key, of_seed in by_setting.items():
    config = next(iter(of_seed.values()))['agent_config']
    others = [next(iter(by_setting[other].values()))['agent_config']
              for other in by_setting if other[0] == key[0]]
    varying = [name for name in config if any(
        other.get(name) != config[name] for other in others)]
    if config.get('fast_init') == 'sign':  # Random signs have no std.
      varying = [name for name in varying if name != 'fast_std']
    label = ' '.join([key[0], *(_field_text(name, config[name])
                                for name in varying
                                if config[name] is not False)])
    labels[key] = label if key[2] == 'none' else f'{label}, {key[2]}'
  if len(set(labels.values())) < len(labels):  # Draws or precisions differ.
    labels = {key: f'{label} ({key[3]} draws, {key[4]})'
              for key, label in labels.items()}
  return [Setting(labels[key], dict(sorted(by_setting[key].items())))
          for key in sorted(by_setting, key=lambda key: (
              _ORDER.index(key[0]) if key[0] in _ORDER else len(_ORDER),
              labels[key]))]


_ORDER = (ONE, DEEP, BATCH)
_SHORT = {'num_ensemble': 'K=', 'fast_init': '', 'fast_std': 'std=',
          'fast_learning_rate': 'fast rate=',
          'plain_member': 'plain member', 'train_shared_by_plain': 'trains W'}


def _field_text(name: str, value: Any) -> str:
  """A setting for a label: 'K=4', 'sign', 'plain member'."""
  stem = _SHORT.get(name, f'{name}=')
  if value is True and not stem.endswith('='):
    return stem
  if isinstance(value, (list, tuple)):
    value = 'x'.join(map(str, value))
  return f'{stem}{value:g}' if isinstance(value, float) else f'{stem}{value}'


def _interval(values: Iterable[float]) -> dict[str, float | None]:
  found = statistics.seed_interval(np.array(list(values), np.float64))
  return {name: None if value is None else float(value)
          for name, value in zip(('mean', 'low', 'high'), found)}


def score_table(data_sets: Mapping[str, Sequence[Setting]]) -> pd.DataFrame:
  """Every score of every setting, also by set: mean and interval over seeds."""
  lines = []
  for data_set, settings in data_sets.items():
    for setting in settings:
      rows = list(setting.rows.values())
      sources = {'': [row['scores'] for row in rows]}
      for row in rows:
        for name, scores in (row['by_set'] or {}).items():
          sources.setdefault(name, []).append(scores)
      for set_name, scores in sources.items():
        for score in table.scores_of('classification'):
          values = [one[score] for one in scores if score in one]
          if values:
            lines.append({
                'data_set': data_set, 'setting': setting.label,
                'agent': setting.agent, 'selection': setting.selection,
                'set': set_name, 'score': score, **_interval(values),
                'num_seeds': len(values)})
  return pd.DataFrame(lines, dtype=object)


def diversity_table(data_sets: Mapping[str, Sequence[Setting]]) -> pd.DataFrame:
  """How alike members are, and how that compares with a deep ensemble.

  The column 'of_deep' is the ratio of the means to those of the deep ensemble
  of `reference_of`, with the jackknife's interval over the shared seeds.
  """
  lines = []
  for data_set, settings in data_sets.items():
    for setting in settings:
      deep = reference_of(setting, settings)
      for score in DIVERSITY:
        values = setting.scores(score)
        if not values or setting.agent == ONE:
          continue
        line = {'data_set': data_set, 'setting': setting.label, 'score': score,
                **_interval(values.values()), 'num_seeds': len(values),
                'deep': None, 'of_deep': None, 'of_deep_low': None,
                'of_deep_high': None}
        if deep is not None:
          others = deep.scores(score)
          seeds = sorted(set(values) & set(others))
          if seeds and table.SCORES[score].positive:
            ratio = statistics.ratio_interval(
                np.array([[values[seed] for seed in seeds]]),
                np.array([[others[seed] for seed in seeds]]))
            line.update(deep=deep.label, of_deep=ratio.value,
                        of_deep_low=ratio.low, of_deep_high=ratio.high)
        lines.append(line)
  return pd.DataFrame(lines, dtype=object)


def reference_of(setting: Setting,
                 settings: Sequence[Setting]) -> Setting | None:
  """The deep ensemble that a setting is measured by: of as many members.

  Methods whose config names no number of members are measured by NUM_MEMBERS.
  None where there is no such ensemble.
  """
  wanted = setting.num_members or NUM_MEMBERS
  for other in settings:
    if other.agent == DEEP and other.selection == 'none' and (
        other.num_members == wanted):
      return other
  return None


def verdict_table(data_sets: Mapping[str, Sequence[Setting]]) -> pd.DataFrame:
  """"It behaves like one network", judged for every method and score.

  The study claims it of BatchEnsemble alone; the other methods answer which
  cheap ensemble is not one network. Every set of its own that has one of the
  `JUDGED` OOD scores is judged as well.

  Raises:
    ValueError: a data set has several settings of one network.
  """
  lines = []
  for data_set, settings in data_sets.items():
    singles = [setting for setting in settings if setting.agent == ONE]
    if len(singles) > 1:
      raise ValueError(f'{data_set} must have one setting of {ONE}, got '
                       f'{", ".join(one.label for one in singles)}.')
    for setting in settings:
      deep = reference_of(setting, settings)
      if setting.agent in (ONE, DEEP) or deep is None:
        continue
      for set_name, score in _judged(setting):
        by_seed = [one.scores(score, set_name)
                   for one in (singles[0], setting, deep)]
        seeds = sorted(set.intersection(*map(set, by_seed)))
        if len(seeds) < 2:
          continue
        found = equivalence.judge(*(
            np.array([values[seed] for seed in seeds]) for values in by_seed))
        lines.append({
            'data_set': data_set, 'setting': setting.label,
            'is_claimed': setting.agent == BATCH, 'deep': deep.label,
            'set': set_name, 'score': score, **found._asdict()})
  return pd.DataFrame(lines, dtype=object)


def _judged(setting: Setting) -> list[tuple[str, str]]:
  """(set, score) of what is judged; '' is the test set, or all sets."""
  row = next(iter(setting.rows.values()))
  found = [('', score) for score in JUDGED if score in row['scores']]
  others = [(name, score) for name, scores in (row['by_set'] or {}).items()
            for score in JUDGED
            if score.startswith('ood_') and score in scores]
  return found + (others if len({name for name, _ in others}) > 1 else [])


def curve_table(data_sets: Mapping[str, Sequence[Setting]]) -> pd.DataFrame:
  """Scores of the first 1, 2, ... members of an order of members."""
  lines = []
  for data_set, settings in data_sets.items():
    for setting in settings:
      curves = [row['curve'] for row in setting.rows.values()
                if row['curve'] is not None]
      names = [name for name in (curves[0] if curves else ())
               if name not in ('order', 'val_score')]
      for name in names:
        lengths = {len(curve[name]) for curve in curves}
        for i in range(min(lengths)):
          lines.append({
              'data_set': data_set, 'setting': setting.label,
              'agent': setting.agent, 'selection': setting.selection,
              'score': name, 'num_members': i + 1,
              **_interval(curve[name][i] for curve in curves),
              'num_seeds': len(curves)})
  return pd.DataFrame(lines, dtype=object)


def cost_table(data_sets: Mapping[str, Sequence[Setting]]) -> pd.DataFrame:
  """What each setting costs, and what it scores for that.

  The columns of EFFICIENT say whether no other setting has a lower mean NLL for
  at most the same cost.
  """
  lines = []
  for data_set, settings in data_sets.items():
    own = []
    for setting in settings:
      line: dict[str, Any] = {
          'data_set': data_set, 'setting': setting.label,
          'agent': setting.agent, 'selection': setting.selection}
      for name in COSTS:
        values = [results.cost_of(row, name) for row in setting.rows.values()]
        values = [value for value in values if value is not None]
        line[name] = float(np.mean(values)) if values else None
      for score in ('accuracy', 'nll', 'ece', 'shift_nll', 'ood_auroc_msp'):
        values = setting.scores(score)
        for part, value in _interval(values.values()).items() if values else ():
          line[f'{score}_{part}'] = value
      own.append(line)
    for cost, name in EFFICIENT.items():
      for line in own:
        line[name] = line[cost] is not None and not any(
            other[cost] is not None and other[cost] <= line[cost]
            and other['nll_mean'] < line['nll_mean'] for other in own)
    lines += own
  return pd.DataFrame(lines, dtype=object)


def best_table(data_sets: Mapping[str, Sequence[Setting]]) -> pd.DataFrame:
  """The setting with the best mean of each score, and who is not worse.

  'not_told_apart' are settings whose paired difference from the best has an
  interval that holds 0. The best of many settings is too good by selection.
  """
  lines = []
  for data_set, settings in data_sets.items():
    for score in RANKED:
      sign = 1. if table.SCORES[score].direction == 'lower' else -1.
      values = {setting.label: setting.scores(score) for setting in settings
                if setting.agent != ONE or score != 'ood_auroc_mi'}
      values = {label: found for label, found in values.items() if found}
      if not values:
        continue
      best = min(values, key=lambda label: sign * np.mean(
          list(values[label].values())))
      equal = []
      for label, found in values.items():
        seeds = sorted(set(found) & set(values[best]))
        difference = statistics.seed_interval(np.array(
            [found[seed] - values[best][seed] for seed in seeds]))
        if label != best and len(seeds) > 1 and (
            difference.low <= 0. <= difference.high):
          equal.append(label)
      lines.append({
          'data_set': data_set, 'score': score, 'best': best,
          **_interval(values[best].values()),
          'num_seeds': len(values[best]), 'num_settings': len(values),
          'not_told_apart': '; '.join(equal)})
  return pd.DataFrame(lines, dtype=object)
