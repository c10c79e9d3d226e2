"""How alike the members of ensembles are: is BatchEnsemble one network?

BatchEnsembles with several fast weights, and a deep ensemble, are trained
without prior and target noise on the testbed's problems, and their members are
compared in pairs at x_test, by `diversity`: disagreement of signs,
Jensen-Shannon divergence of N(f_k(x), noise_std^2), correlation of predictions,
cosine of the members' effective weights (without biases and prior; W o (r s^T)
for a BatchEnsemble); and their std over the exact posterior's, and their KL,
beside that of one network. `one_network_share` is where the logarithm of the KL
stands on the way from the deep ensemble (0) to the one network (1).
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles import problems
from enn_ensembles import sweeps
from enn_ensembles.agents import batch_ensemble
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.scoring import diversity
from enn_ensembles.scoring import gaussian
from enn_ensembles.studies import problem_grids
from enn_ensembles.studies.layer_ensembles import settings

_ALONE = {'num_ensemble': 4, 'prior_scale': 0., 'noise_scale': 0.}
AGENTS = (
    {'agent': 'batch_ensemble', 'fast_init': 'sign', **_ALONE},
    {'agent': 'batch_ensemble', 'fast_init': 'normal',
     'fast_std': [0.1, 0.25, 0.5], **_ALONE},
    {'agent': 'ensemble', **_ALONE},
    {'agent': 'map'},
)

MAX_PAIRS = 45  # Those of ten members.


def member_layers(agent: str, params: base.Params) -> list[np.ndarray]:
  """The weights that every member computes with.

  Args:
    agent: name of the agent, one of AGENTS.
    params: trained parameters of one problem.

  Returns:
    Per layer [K, out, in + 1] float64, the bias last.
  """
  layers = (batch_ensemble.all_members(params) if agent == 'batch_ensemble'
            else networks.get_weights(params))
  return [np.asarray(layer, np.float64) for layer in layers]


def measure(predictions: np.ndarray, layers: Sequence[np.ndarray],
            problem: problems.Problem) -> dict[str, float]:
  """All measures of one trained ensemble on one problem.

  Args:
    predictions: of all members at x_test, [K, N].
    layers: of `member_layers`.
    problem: the problem.

  Returns:
    Name -> value. One member has no pairs: only the KL.
  """
  mean, std = gaussian.sample_moments(predictions, axis=0)
  scores = gaussian.posterior_scores(
      mean, std, problem.test_mean, problem.test_std,
      num_samples=len(predictions))
  found = {score: scores[score] for score in settings.SCORES}
  if len(predictions) < 2:
    return found
  pairs = diversity.member_pairs(len(predictions), MAX_PAIRS)
  weights = [layer[..., :-1].reshape(len(layer), -1) for layer in layers]
  pairwise = {
      'disagreement': diversity.sign_disagreement(predictions, pairs),
      'jensen_shannon': diversity.mean_jensen_shannon(
          predictions, problem.noise_std, pairs),
      'correlation': diversity.correlation(predictions, pairs),
      'cosine': diversity.cosine(np.concatenate(weights, axis=1), pairs),
      **{f'cosine_layer_{i}': diversity.cosine(layer, pairs)
         for i, layer in enumerate(weights)}}
  return {**{name: float(np.mean(values))
             for name, values in pairwise.items()},
          'std_ratio': float(np.mean(std / problem.test_std)), **found}


def measure_unit(unit: sweeps.WorkUnit) -> list[dict[str, Any]]:
  """Trains an agent setting on one (input_dim, data_ratio) and measures it.

  Returns:
    A dict per noise level and seed.
  """
  family = unit.family
  assert isinstance(family, nngp.NngpFamily)
  groups: list[list[problems.Problem]] = [
      problems.make_problems(family.configs(seed)) for seed in unit.seeds]
  agent = agents_lib.from_settings(unit.agent, unit.agent_settings())
  trained = problem_grids.train(agent, unit.seeds, groups, unit.dtype)
  predictor = problem_grids.make_predictor(agent, trained, unit.seeds, groups,
                                           None)
  found = []
  for s, group in enumerate(groups):
    for e, problem in enumerate(group):
      samples = predictor.for_problem(s, e)(problem.x_test).samples
      assert samples is not None  # Members are drawn, not moments.
      samples = samples[..., 0]
      layers = member_layers(unit.agent, jax.tree.map(
          lambda leaf, s=s, e=e: leaf[s, e], trained.params))
      found.append({
          'setting': unit.agent_label, 'num_members': len(samples),
          'reference': family.reference, 'input_dim': family.input_dim,
          'data_ratio': family.data_ratio, 'noise_std': family.noise_stds[e],
          'seed': unit.seeds[s],
          **measure(np.asarray(samples, np.float64), layers, problem)})
  return found


CELL = ['input_dim', 'data_ratio', 'noise_std']
_KEYS = ['setting', 'num_members', 'reference']


def summarize(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
  """Means over seeds, per agent setting and cell and over all cells.

  Args:
    found: a dict per agent setting and problem; every setting on the same
      problems.
  """
  table = _add_one_network_share(pd.DataFrame(found))
  measures = [name for name in table if name not in (*_KEYS, *CELL, 'seed')]
  lines = []
  groups: Any = table.groupby(_KEYS, sort=False)
  for keys, own in groups:
    cells: list[Any] = [(cell, rows) for cell, rows in own.groupby(CELL)]
    for cell, rows in [*cells, ((None, None, None), own)]:
      per_seed = rows.groupby('seed')[measures].mean()
      line: dict[str, Any] = {
          **dict(zip(_KEYS, keys)), **dict(zip(CELL, cell)),
          'num_cells': len(rows) // len(per_seed), 'num_seeds': len(per_seed)}
      for name in measures:
        interval = statistics.seed_interval(per_seed[name].to_numpy())
        for ending, value in zip(('', '_low', '_high'), interval):
          line[name + ending] = None if value is None or np.isnan(
              value) else float(value)
      lines.append(line)
  single = {tuple(line[name] for name in CELL): line['kl_estimate']
            for line in lines if line['setting'] == 'map'}
  for line in lines:
    line['map_kl_estimate'] = single.get(tuple(line[name] for name in CELL))
  return pd.DataFrame(lines, dtype=object)


def _add_one_network_share(table: pd.DataFrame) -> pd.DataFrame:
  """The table with the column one_network_share; nan where it has no sense."""
  table = table.copy()
  problem: Any = [table[name] for name in ('reference', *CELL, 'seed')]
  with np.errstate(all='ignore'):
    log_kl = pd.Series(np.log(table['kl_estimate'].to_numpy()), table.index)

  def on_problem(agent: str) -> pd.Series:
    own = table['setting'].str.split(',').str[0] == agent
    return log_kl.where(own).groupby(problem).transform('mean')

  deep, single = on_problem('ensemble'), on_problem('map')
  table['one_network_share'] = (log_kl - deep) / (single - deep)
  return table


_PRINTED = ('disagreement', 'jensen_shannon', 'correlation', 'cosine',
            'std_ratio', 'kl_estimate', 'one_network_share')


def plain_text(table: pd.DataFrame) -> str:
  """The means over all cells of what `summarize` gives, a line per setting."""
  overall = table[table['input_dim'].isna()]
  names = [name for name in _PRINTED if name in overall]
  lines = [[f'{"setting":52s}', *(f'{name:>14s}' for name in names)]]
  for _, line in overall.iterrows():
    lines.append([f'{line["setting"]:52s}', *(
        f'{text.short_number(line[name]):>14s}' for name in names)])
  return '\n'.join(map(' '.join, lines))
