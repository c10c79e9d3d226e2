"""Writes docs/tutorial.ipynb, with the outputs of running it.

python scripts/make_tutorial.py [FILE]

It needs nbformat, nbclient and ipykernel: pip install '.[test]'.
"""

import argparse
import os
import pathlib
import tempfile

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Markdown and code, one after the other.
CELLS = (
    '''# From a problem to a leaderboard

An agent learns from ten points of a function that was drawn from a Gaussian
process. The exact posterior of that function is known, so that what the agent
says about what it does not know can be scored.''',
    '''import matplotlib.pyplot as plt
import numpy as np

import enn_ensembles as ee

problem = ee.load_problem('D1_l10_e0.1_s0')  # D_x, lambda, epsilon, seed
problem.data.x.shape, problem.prior.noise_std''',
    '''## An agent

Ten networks, each with an untrained network added to it (a randomized prior
function), and with noise on its labels: each is about a draw of the posterior.
A sampler gives one function for each key; of an ensemble it also gives all
members.''',
    '''ensemble = ee.train(ee.make_agent('ensemble', num_ensemble=10), problem)
x = np.linspace(-3, 3, 200)[:, None]
members = ensemble.members(x)  # [10 members, 200 points, 1 output]
members.shape''',
    '''## Scores

`kl_estimate` is the mean KL from the exact posterior to the agent, `kl_floor`
what ten draws of the exact posterior itself would score. A sweep writes the
same numbers.''',
    '''scores = ee.score(ensemble, problem)
for name in ('kl_estimate', 'kl_floor', 'std_ratio'):
  print(f'{name:12s} {scores[name]:7.4f}   {ee.SCORES[name].meaning}')''',
    '''## Mean and band against the exact posterior

The agent `exact_posterior` computes the truth from the same data: two
standard deviations about the mean of each.''',
    '''exact = ee.train(ee.make_agent('exact_posterior'), problem)
exact_mean, exact_std = exact.moments(x)

def show(axes, mean, std, title):
  axes.fill_between(x[:, 0], exact_mean - 2 * exact_std,
                    exact_mean + 2 * exact_std, color='0.85', label='exact')
  axes.plot(x, exact_mean, color='0.5')
  axes.plot(x, mean, color='C0', label='agent')
  axes.plot(x, mean - 2 * std, 'C0--', x, mean + 2 * std, 'C0--', lw=1)
  axes.plot(problem.data.x, problem.data.y, 'k.', label='data')
  axes.set(title=title, xlabel='x', ylabel='f(x)', ylim=(-3, 3))

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), dpi=70, sharey=True)
members = members[..., 0]
show(axes[0], members.mean(0), members.std(0), 'deep ensemble of 10')
prior = ee.train(ee.make_agent('prior_only'), problem)
show(axes[1], *prior.moments(x), 'prior only')
axes[0].legend(loc='lower left')
plt.show()''',
    '''## Your own agent

Any function of data that returns draws of a function is an agent: here
Bayesian linear regression. `check_agent` is silent where it keeps the rules.
A sweep finds it as a file.''',
    '''%%writefile linear.py
import jax
import jax.numpy as jnp

def make_agent():
  def agent(data, prior, key):
    design = jnp.append(data.x, jnp.ones((len(data.x), 1)), axis=1)
    precision = (design.T @ design / prior.noise_std**2
                 + prior.input_dim * jnp.eye(design.shape[1]))
    mean = jnp.linalg.solve(precision, design.T @ data.y) / prior.noise_std**2
    root = jnp.linalg.inv(jnp.linalg.cholesky(precision)).T
    def sampler(x, key):
      weights = mean + root @ jax.random.normal(key, mean.shape)
      return jnp.append(x, jnp.ones((len(x), 1)), axis=1) @ weights
    sampler.mappable = True  # jax.vmap may draw many at once.
    return sampler
  return agent''',
    None,
    '''own = ee.make_agent('linear.py')
ee.check_agent(own)
ee.score(own, problem)['kl_estimate']''',
    '''## A small sweep and its leaderboard

Two noise levels and two seeds, in this process. What is done is not done again:
run the cell twice. `enn-ensembles run` does the same with all cores. On the
board 1 is as far from the truth as the prior, and 0 is exact.''',
    '''config = ee.SweepConfig(
    'tutorial', seed=(0, 1),
    agents=({'agent': 'linear'}, {'agent': 'ensemble', 'num_ensemble': 10},
            {'agent': 'prior_only'}, {'agent': 'exact_posterior'}),
    problem={'input_dim': (1,), 'data_ratio': (10.,), 'noise_std': (0.1, 1.)})
rows = ee.run_sweep(config, 'results', agent_modules=['linear.py'])''',
    None,
    '''board = ee.make_board('results')
board[['rank', 'label', 'kl_estimate_relative', 'kl_estimate_mean',
       'kl_floor_mean']]''',
    '''The page with every problem and setting is
`enn-ensembles board --results_dir=results --output_dir=output`; the papers'
grid is `enn-ensembles run --config=paper`.''',
)


def make_notebook() -> nbformat.NotebookNode:
  """The notebook without outputs. None stands for no text between codes."""
  notebook = nbformat.v4.new_notebook()
  for i, text in enumerate(CELLS):
    if text is None:
      continue
    make = (nbformat.v4.new_code_cell if i % 2
            else nbformat.v4.new_markdown_cell)
    cell = make(text)
    cell['id'] = f'cell-{i}'  # The same at every run.
    notebook.cells.append(cell)
  notebook.metadata['kernelspec'] = {
      'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}
  return notebook


def run(notebook: nbformat.NotebookNode, folder: str | os.PathLike) -> None:
  """Runs it in a folder and fills in its outputs."""
  nbclient.NotebookClient(
      notebook, timeout=300, kernel_name='python3', record_timing=False,
      resources={'metadata': {'path': str(folder)}}).execute()


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('file', nargs='?', type=pathlib.Path,
                      default=ROOT / 'docs' / 'tutorial.ipynb')
  path = parser.parse_args().file
  os.environ['PYTHONPATH'] = str(ROOT)
  notebook = make_notebook()
  with tempfile.TemporaryDirectory() as folder:
    run(notebook, folder)
  notebook.metadata.pop('language_info', None)
  nbformat.write(notebook, path)


if __name__ == '__main__':
  main()
