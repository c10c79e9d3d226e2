"""Runs the agents on small problems, and shows the leaderboard.

python -m experiments.quickstart [--problems=digits] [--results_dir=DIR] \
    [--output_dir=OUT]

Regression against the exact posterior: 40 seconds on two idle cores of an AMD
EPYC, the first rows after two seconds. With --problems=digits, classification
of small images that need no file: half a minute. What is done is not done
again.
"""

import pathlib
import signal
import subprocess
import sys

from absl import flags

from enn_ensembles.machine import files
from enn_ensembles.machine import preemption
from experiments import cli

_PROBLEMS = flags.DEFINE_enum(
    'problems', 'nngp', ['nngp', 'digits'], 'Draws of a Gaussian process, or '
    "scikit-learn's handwritten digits.")
_CONFIG = flags.DEFINE_string(
    'config', None, 'The sweep, by its name or file, whatever --problems is. '
    'Default: the one of --problems.')
_RESULTS_DIR = flags.DEFINE_string(
    'results_dir', None, 'Where rows go; made if missing. Default: a folder of '
    '--problems in results.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the leaderboard goes. Default: a folder of '
    '--problems in output.')

_NAMES = {'nngp': 'quickstart', 'digits': 'quickstart_digits'}

_MEANING = {
    'nngp': '''
What the numbers mean: KL is the mean over 1000 test points of the divergence
from the exact Bayesian posterior to the agent, in nats; 0 is perfect. A board's
floor is what as many draws of the exact posterior itself score, `prior_only` is
what learning has to beat, and `exact_posterior` checks the whole pipeline.
''',
    'digits': '''
What the numbers mean: NLL is the mean negative log probability of the labels of
test images, in nats; knowing nothing is ln 8 = 2.08. Accuracy is the share of
them that is right, ECE how far confidence is from accuracy, and "NLL under
shift" is of rotated and noisy test images. OOD AUROC says how well other images
(the digits 8 and 9, and permuted pixels) are told from test images: 1 is
always, 0.5 is a coin. MSP tells them by how sure the mean prediction is, MI by
how much members differ; one network has no MI. 476 test images and two seeds:
differences of less than a hundredth of accuracy are luck.
'''}

_ENDING = '''
The page, with every problem and every setting:
  {page}
Your own agent, a Python file as README.md shows:
  {command} run --config={config} --results_dir={results} \\
      --agent_module=my_agent.py
  {command} board --results_dir={results} --output_dir={output}
'''

_NEXT = {
    'nngp': '''
The papers' grid, hours on one machine; it may be stopped and started again:
  {command} run --config=paper --max_num_train=1000 --results_dir=results/paper
''',
    'digits': '''
MNIST, with its files in FOLDER (docs/images.md):
  {command} run --config=batch_ensemble_mnist --data_dir=FOLDER \\
      --results_dir=results/mnist
'''}


def make_ending(kind: str | None, page: str, config: str, results: str,
                output: str) -> str:
  """What the numbers mean, and where to go from here.

  Args:
    kind: of problems, a value of --problems; None for a sweep of the user's
      own, of whose numbers nothing is said.
    page: address of the page.
    config: name or file of the sweep.
    results: folder of the rows.
    output: folder of the page.
  """
  text = (_ENDING if kind is None else
          _MEANING[kind] + _ENDING + _NEXT[kind].lstrip('\n'))
  return text.format(
      page=page, command='enn-ensembles', config=config, results=results,
      output=output)


def _run(*command: str) -> int:
  """One command of the package in a process of its own; its exit code.

  Signals are passed on: the command knows how to end, and this one ends then.
  """
  with subprocess.Popen([sys.executable, '-m', 'enn_ensembles',
                         *command]) as process:
    handlers = {name: signal.signal(getattr(signal, name),
                                    lambda number, _: process.send_signal(
                                        number))
                for name in preemption.SIGNALS if hasattr(signal, name)}
    try:
      return process.wait()
    finally:
      for name, handler in handlers.items():
        signal.signal(getattr(signal, name), handler)


def main(_) -> int:
  kind, name = _PROBLEMS.value, _NAMES[_PROBLEMS.value]
  config = name if _CONFIG.value is None else _CONFIG.value
  results, output = (
      f'{default}/{name}' if flag.value is None else flag.value
      for flag, default in ((_RESULTS_DIR, 'results'), (_OUTPUT_DIR, 'output')))
  # Before the minute that the sweep takes.
  files.check_folder(results, '--results_dir')
  files.check_folder(output, '--output_dir')
  code = _run('run', f'--config={config}', f'--results_dir={results}')
  if code not in (0, 1):  # 1: an agent failed, which the board shows.
    return code
  failed = _run('board', f'--results_dir={results}', f'--output_dir={output}')
  if failed:
    return failed
  page = (pathlib.Path(output) / 'leaderboard.html').resolve()
  print(make_ending(kind if _CONFIG.value is None else None, page.as_uri(),
                    config, results, output))
  return code


if __name__ == '__main__':
  cli.run_main(main)
