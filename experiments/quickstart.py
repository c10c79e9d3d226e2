"""Runs every agent on small problems, and shows the leaderboard.

python -m experiments.quickstart [--results_dir=DIR] [--output_dir=OUT]

Some minutes at most on two cores. What is done is not done again.
"""

import pathlib
import subprocess
import sys

from absl import flags

from experiments import cli

_CONFIG = flags.DEFINE_string(
    'config', 'quickstart', 'The sweep, by its name or file.')
_RESULTS_DIR = flags.DEFINE_string(
    'results_dir', 'results/quickstart', 'Where rows go; made if missing.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', 'output/quickstart', 'Where the leaderboard goes.')

_ENDING = '''
What the numbers mean: KL is the mean over 1000 test points of the divergence
from the exact Bayesian posterior to the agent, in nats; 0 is perfect. A board's
floor is what as many draws of the exact posterior itself score, `prior_only` is
what learning has to beat, and `exact_posterior` checks the whole pipeline.

The page, with every problem and every setting:
  {page}
Your own agent, a Python file as README.md shows:
  {command} run --config={config} --results_dir={results} \\
      --agent_module=my_agent.py
  {command} board --results_dir={results} --output_dir={output}
The papers' grid, hours on one machine; it may be stopped and started again:
  {command} run --config=paper --max_num_train=1000 --results_dir=results/paper
'''


def _run(*command: str) -> int:
  """One command of the package in a process of its own; its exit code."""
  return subprocess.run([sys.executable, '-m', 'enn_ensembles', *command],
                        check=False).returncode


def main(_) -> int:
  results, output = _RESULTS_DIR.value, _OUTPUT_DIR.value
  code = _run('run', f'--config={_CONFIG.value}', f'--results_dir={results}')
  if code not in (0, 1):  # 1: an agent failed, which the board shows.
    return code
  failed = _run('board', f'--results_dir={results}', f'--output_dir={output}')
  if failed:
    return failed
  page = (pathlib.Path(output) / 'leaderboard.html').resolve()
  print(_ENDING.format(page=page.as_uri(), command='enn-ensembles',
                       config=_CONFIG.value, results=results, output=output))
  return code


if __name__ == '__main__':
  cli.run_main(main)
