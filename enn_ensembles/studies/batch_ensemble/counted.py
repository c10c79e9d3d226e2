"""Tables of the counts that rows keep of their predictions.

`scoring.prediction_counts` says what they are. Counts of all seeds of a setting
are added up; matrices of members are averaged over seeds: members have no
order that seeds share, but those of one setting start alike.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.scoring import prediction_counts
from enn_ensembles.studies.batch_ensemble import measures

_BINS = ('bin_count', 'bin_confidence', 'bin_correct')


def _counts_of(setting: measures.Setting) -> list[Mapping[str, Any]]:
  """The counts of a setting's rows that have them."""
  return [row['counts'] for row in setting.rows.values() if row.get('counts')]


def _added(setting: measures.Setting, names: Sequence[str]
           ) -> dict[str, prediction_counts.Counts]:
  """Set -> those of its counts, of all seeds together."""
  found: dict[str, list[dict[str, Any]]] = {}
  for counts in _counts_of(setting):
    for set_name, own in counts.items():
      if set(names) <= set(own):
        found.setdefault(set_name, []).append(
            {name: own[name] for name in names})
  return {name: prediction_counts.add(parts) for name, parts in found.items()}


def reliability_table(data_sets: Mapping[str, Sequence[measures.Setting]]
                      ) -> pd.DataFrame:
  """Accuracy and mean confidence of every bin of the confidence with points.

  Of the test set, and of all shifted test sets together.
  """
  lines = []
  for data_set, settings in data_sets.items():
    for setting in settings:
      for set_name, counts in _added(setting, _BINS).items():
        for number, (count, confidence, correct) in enumerate(zip(
            *(counts[name] for name in _BINS))):
          if count:
            lines.append({
                'data_set': data_set, 'setting': setting.label,
                'agent': setting.agent, 'set': set_name, 'bin': number,
                'num_points': int(count), 'confidence': confidence / count,
                'accuracy': correct / count})
  return pd.DataFrame(lines, dtype=object)


def information_table(data_sets: Mapping[str, Sequence[measures.Setting]]
                      ) -> pd.DataFrame:
  """Share of each set's points by their mutual information, in nats."""
  edges = (0., *prediction_counts.MI_EDGES, np.inf)
  lines = []
  for data_set, settings in data_sets.items():
    for setting in settings:
      if setting.agent == measures.ONE:
        continue
      for set_name, counts in _added(setting, ('mi_count',)).items():
        total = sum(counts['mi_count'])
        lines += [{
            'data_set': data_set, 'setting': setting.label,
            'agent': setting.agent, 'set': set_name, 'from': low, 'to': high,
            'share': count / total}
                  for low, high, count in zip(edges, edges[1:],
                                              counts['mi_count'])]
  return pd.DataFrame(lines, dtype=object)


def similarity_table(data_sets: Mapping[str, Sequence[measures.Setting]]
                     ) -> pd.DataFrame:
  """Every entry of the matrices of members on test images, mean over seeds.

  A setting whose seeds have selected different numbers of members has none.
  """
  lines = []
  for data_set, settings in data_sets.items():
    for setting in settings:
      own = [counts['test'] for counts in _counts_of(setting)]
      for name in prediction_counts.MATRICES:
        matrices = [counts[name] for counts in own if name in counts]
        if len({len(matrix) for matrix in matrices}) != 1:
          continue
        mean = np.mean(matrices, axis=0)
        lines += [{
            'data_set': data_set, 'setting': setting.label,
            'agent': setting.agent, 'measure': name, 'first': i + 1,
            'second': j + 1, 'mean': float(mean[i, j]),
            'num_seeds': len(matrices)}
                  for i in range(len(mean)) for j in range(len(mean))]
  return pd.DataFrame(lines, dtype=object)


def make_tables(data_sets: Mapping[str, Sequence[measures.Setting]]
                ) -> dict[str, pd.DataFrame]:
  """All tables by their names; those without lines are left out."""
  tables = {'reliability': reliability_table(data_sets),
            'information': information_table(data_sets),
            'similarity': similarity_table(data_sets)}
  return {name: found for name, found in tables.items() if len(found)}
