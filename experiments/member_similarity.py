"""How alike the members of ensembles are: is BatchEnsemble one network?

python -m experiments.member_similarity --output_dir=OUT \
    [--input_dim=10,100 --data_ratio=1,10 --noise_std=0.01,0.1,1 --seed=0,1,2]

Trains BatchEnsembles of 4 with several fast weights, and a deep ensemble of 4,
without prior and target noise on the testbed's problems and compares their
members in pairs at x_test, by `diversity`: disagreement of signs,
Jensen-Shannon divergence of N(f_k(x), noise_std^2), correlation of predictions,
cosine of the members' effective weights (without biases and prior; W o (r s^T)
for a BatchEnsemble); and their std over the exact posterior's, and their KL,
beside that of one network. `one_network_share` is where the logarithm of the KL
stands on the way from the deep ensemble (0) to the one network (1).

Writes similarity.csv: a row per agent setting and cell, means over pairs and
seeds with Student's t 95 % intervals over seeds, and per agent setting a row
without a cell, the mean over all of them.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles import problems
from enn_ensembles import sweeps
from enn_ensembles.agents import batch_ensemble
from enn_ensembles.machine import files
from enn_ensembles.problems import draws
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.report import csv_files
from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.scoring import diversity
from enn_ensembles.scoring import gaussian
from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.training import loop
from enn_ensembles.training import prediction
from experiments import cli

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where similarity.csv goes; made if missing.',
    required=True)
_INPUT_DIM = flags.DEFINE_list('input_dim', ['10', '100'], 'Values of D_x.')
_DATA_RATIO = flags.DEFINE_list('data_ratio', ['1', '10'], 'Values of lambda.')
_NOISE_STD = flags.DEFINE_list('noise_std', ['0.01', '0.1', '1'],
                               'Values of epsilon.')
_SEED = flags.DEFINE_list('seed', ['0', '1', '2'], 'Seeds of the problems.')
_REFERENCE = flags.DEFINE_enum(
    'reference', 'bayes', ['bayes', 'enn2021'], 'Reference of the posterior.')
_AGENTS = flags.DEFINE_list(
    'agents', None, 'Only these agents. Default: every one of AGENTS.')
_NUM_BATCHES = flags.DEFINE_integer(
    'num_batches', None, 'SGD steps, for a trial. Default: those of the '
    'agents.', lower_bound=1)

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
  module = agents_lib.load_agent(unit.agent)
  agent = agents_lib.make_agent(
      module, agents_lib.make_config(module, unit.agent_settings()))
  trained = loop.train(
      agent, np.stack([group[0].x_train for group in groups]),
      np.stack([[problem.y_train for problem in group] for group in groups]),
      base.Gaussian(np.asarray(family.noise_stds)),
      jnp.stack([problems.agent_key(seed) for seed in unit.seeds]),
      dtype=jnp.dtype(unit.dtype))
  prior = groups[0][0].prior
  predictor = prediction.Predictor(
      agent, trained, prior,
      jnp.stack([problems.evaluation_key(seed) for seed in unit.seeds]), None)
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


def _make_units() -> list[sweeps.WorkUnit]:
  entries = AGENTS
  if _AGENTS.value is not None:
    named = cli.names(_AGENTS, sorted({entry['agent'] for entry in AGENTS}))
    entries = tuple(entry for entry in AGENTS if entry['agent'] in named)
  if _NUM_BATCHES.value is not None:
    entries = tuple({**entry, 'num_batches': _NUM_BATCHES.value}
                    for entry in entries)
  units = sweeps.expand(sweeps.SweepConfig(
      name='of member_similarity', agents=entries,
      seed=tuple(cli.numbers(_SEED, int, draws.check_seed)),
      problem={**{flag.name: tuple(cli.numbers(
          flag, kind, nngp.CONFIG_NAMES[flag.name.upper()].check))
                  for flag, kind in ((_INPUT_DIM, int), (_DATA_RATIO, float),
                                     (_NOISE_STD, float))},
               'reference': _REFERENCE.value}))
  one_unit.check_units(units, unit_results.RunOptions(results_dir=''))
  return list(units)


def main(_) -> None:
  jax.config.update('jax_enable_x64', True)
  units = _make_units()
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  start, found = time.perf_counter(), []
  for i, unit in enumerate(units):
    found += measure_unit(unit)
    print(f'[{time.perf_counter() - start:6.1f} s] {i + 1}/{len(units)} '
          f'{unit.agent_label}, {unit.family.name}', flush=True)
  table = summarize(found)
  path = pathlib.Path(folder) / 'similarity.csv'
  files.write_atomically(path, csv_files.table_text(table).encode())
  overall = table[table['input_dim'].isna()]
  names = [name for name in ('disagreement', 'jensen_shannon', 'correlation',
                             'cosine', 'std_ratio', 'kl_estimate',
                             'one_network_share')
           if name in overall]
  print(' '.join([f'{"setting":52s}', *(f'{name:>14s}' for name in names)]))
  for _, line in overall.iterrows():
    print(' '.join([f'{line["setting"]:52s}', *(
        f'{text.short_number(line[name]):>14s}' for name in names)]))
  print(path)


if __name__ == '__main__':
  cli.run_main(main)
