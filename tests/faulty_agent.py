"""An agent of a user's own, and what goes wrong with it, for tests of runs."""

import commands
import pytest

from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.problems import kinds
from enn_ensembles.sweeps import unit_results

# A constant, drawn from the key; a setting says what goes wrong.
AGENT = '''
import dataclasses
import os
import time
import numpy as np

@dataclasses.dataclass(frozen=True)
class MyConfig:
  what: str = 'zero'
  where: str = ''

def make_agent(config: MyConfig):
  if config.what == 'make_raises':
    raise OSError('no such thing')
  def agent(data, prior, key):
    if config.what == 'killed':
      os.kill(os.getpid(), 9)
    if config.what == 'exits':
      os._exit(3)
    if config.what == 'interrupted':
      raise KeyboardInterrupt
    if config.what == 'raises' and prior.noise_std > 0.5:
      raise ArithmeticError('too\\nnoisy')
    if config.what == 'tells':
      with open(f'{config.where}/{prior.noise_std}-{np.sum(data.x)}', 'x') as f:
        time.sleep(0.3)  # So that no worker does it all.
        f.write(f'{sorted(os.sched_getaffinity(0))} '
                f'{os.environ["OPENBLAS_NUM_THREADS"]}')
    def sampler(x, key):
      value = np.nan if config.what == 'nan' else np.asarray(key)[-1] % 7.
      return np.full([len(x), 1], value)
    if config.what == 'members':
      sampler.members = lambda x: np.arange(4.)[:, None, None] + 0. * x[
          None, :, :1]
    return sampler
  return agent
'''

# Settings of an ensemble that trains in no time.
TINY = {'num_batches': 3, 'hidden_sizes': (4,), 'num_ensemble': 2}


@pytest.fixture(name='folder')
def make_folder(tmp_path):
  """A folder with the agent's file."""
  (tmp_path / 'my_agent.py').write_text(AGENT)
  return tmp_path


def make_units(folder, agent='my_agent', seed=(0,), noise_std=(0.1, 1.),
               data_ratio=(1.,), num_enn_samples=5, solver='auto', **settings):
  """Work units of one agent, by default the faulty one, at D_x = 3."""
  config = sweeps.SweepConfig(
      'test', seed, ({'agent': agent, **settings},),
      {'input_dim': (3,), 'data_ratio': data_ratio, 'noise_std': noise_std,
       'solver': solver}, num_enn_samples=num_enn_samples)
  return sweeps.expand(config, (str(folder / 'my_agent.py'),))


def make_options(folder, **fields):
  """Options that write to a store in the folder; tests share the problems."""
  results.open_store(folder / 'store', create=True)
  return unit_results.RunOptions(
      str(folder / 'store'), agent_modules=(str(folder / 'my_agent.py'),),
      **{'problem_settings': kinds.ProblemSettings(
          cache_dir=str(commands.shared_problems())), **fields})


def read_rows(folder):
  """The rows of that store."""
  return results.ResultsStore(folder / 'store').read_rows()


def scores_of(rows):
  """The scores of rows by row_id, in the order of their names; or None."""
  return {row['row_id']: row['scores'] and [
      row['scores'][name] for name in sorted(row['scores'])] for row in rows}
