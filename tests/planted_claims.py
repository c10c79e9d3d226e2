"""Rows and tables on which claims of the paper have a known verdict."""

import example_rows
import numpy as np
import pandas as pd

from enn_ensembles.studies.layer_ensembles import claims

CELLS = [(10, 1., 0.1), (100, 1., 1.)]
SEEDS = (0, 1, 2, 3)


def make_rows(setting, level, reference='bayes', reverse=2., curve=None,
              spread=0.02, seeds=SEEDS):
  """Rows of a setting with mean KL `level`, some scatter over seeds.

  Args:
    setting: a `comparison.Setting`.
    level: KL of all members.
    reference: of the rows.
    reverse: kl_reverse over kl_estimate.
    curve: KL by number of samples over `level`, a list; None for none.
    spread: relative scatter, known and summing to 0 over seeds.
    seeds: seeds.
  """
  rows = []
  scatter = spread * np.array([-1., 1., -0.5, 0.5])
  label = ','.join([setting.agent, *(f'{name}={value}'
                                     for name, value in setting.fields)])
  for cell in CELLS:
    for seed in seeds:
      kl = level * (1. + scatter[seed % 4])
      kls = None if curve is None else [kl * value for value in curve]
      stored = None if kls is None else {
          'order': list(range(len(kls))), 'kl_estimate': kls,
          'kl_reverse': [reverse * v for v in kls],
          **({} if setting.selection == 'none' else {'val_score': kls})}
      rows.append(example_rows.make_row(
          kl, label, seed=seed, input_dim=cell[0], data_ratio=cell[1],
          noise_std=cell[2],
          agent_config=dict(setting.fields), selection=setting.selection,
          reference=reference, kl_reverse=reverse * kl, curve=stored,
          run_id=f'{label}-D{cell[0]}-{setting.selection}-{reference}',
          problem_id=f'D{cell[0]}_s{seed}_{reference}',
          rank_seconds=None if setting.selection == 'none' else 0.1))
  return rows


def u_curve(best, length=125, depth=0.5):
  """A curve with its lowest value `depth` at P = best, 1 at the end."""
  p = np.arange(1, length + 1)
  rise = np.log(p / best) / np.log(length / best)
  fall = np.log(best / p) / np.log(max(best, 2))
  return (depth + (1. - depth) * np.where(p > best, rise, fall)).tolist()


def lines_by_claim(rows, **tables):
  found = {}
  for line in claims.evaluate(rows, **tables):
    found.setdefault((line.claim, line.reference, line.score), line)
  return found


ONE_BY_ONE = 'against one combination after the other'
AT_ONCE = 'against all combinations at once'


def figure3(speed_ups, memory=lambda k: 0.5 * k**2):
  rows = [{'num_options': k, 'num_samples': k**4, 'repeats': 5,
           'speedup_ole': speed, 'speedup_ole_low': 0.99 * speed,
           'speedup_ole_high': 1.01 * speed, 'memory_ole_bytes': 1000,
           'memory_one_by_one_bytes': 100,
           'memory_one_program_bytes': 1000 * memory(k),
           'speedup_ole_over_one_program': 2. if k < 4 else None,
           'speedup_ole_over_one_program_low': 1.9 if k < 4 else None,
           'speedup_ole_over_one_program_high': 2.1 if k < 4 else None}
          for k, speed in speed_ups.items()]
  # A smaller set, which the claims are not about.
  rows.append({**rows[-1], 'num_samples': 10, 'speedup_ole': 500.,
               'memory_one_program_bytes': 1.})
  return pd.DataFrame(rows)
