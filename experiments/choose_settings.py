"""Chooses agents' settings by held-out labels, and writes them as a config.

python -m experiments.run_sweep --config=testbed_configs/tuning.py \
    --results_dir=DIR
python -m experiments.choose_settings --results_dir=DIR --output_dir=OUTPUT

Writes chosen.csv, a line per agent and noise level with its best setting and
loss; tuned.py, the config of the board of tuned settings; and, where an agent
has another setting at a noise level alone, tuned_eLEVEL.py, a config of that
level. When these have run, --board_results_dir=DIR,... (with the board of
papers' settings among them) also writes gains.csv: the KL of each agent with
its paper's setting, one for all noise levels, and one for each.
`enn_ensembles/studies/tuning` says how settings are chosen, also from a sweep
that has not run whole; the files say on how many of its seeds. --score chooses
by another score than that of held-out labels.
"""

import pprint
from typing import Any

from absl import flags

from enn_ensembles import sweeps
from enn_ensembles.machine import files
from enn_ensembles.report import columns
from enn_ensembles.report import csv_files
from enn_ensembles.studies.tuning import choice
from enn_ensembles.studies.tuning import gains
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that the tuning sweep has written to.',
    required=True)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where chosen.csv and tuned.py go; made if missing.',
    required=True)
_BOARD_CONFIG = flags.DEFINE_string(
    'board_config', 'paper', 'The config whose problems are taken, a file or a '
    "name: papers' settings.")
_TUNING_CONFIG = flags.DEFINE_string(
    'tuning_config', 'tuning', 'The config of the tuning sweep, a file or a '
    'name, which says what seeds it has.')

_BOARD_RESULTS_DIR = flags.DEFINE_list(
    'board_results_dir', None, "Folders with the rows of papers' settings and "
    'of the chosen ones on the problems of the board, for gains.csv.')
_SCORE = flags.DEFINE_string(
    'score', choice.SCORE, 'What settings are chosen by: a score of which less '
    'is better.')

_PROBLEM_NAMES = ('input_dim', 'data_ratio', 'noise_std')

_HEADER = '''\
"""Settings chosen by {chosen_by}, on the problems of the board.

Made by python -m experiments.choose_settings from the rows of
testbed_configs/tuning.py. Seeds of the board and of tuning are different.
{tried}
"""

'''


def _tried(choices: list[choice.Choice], num_seeds: int) -> str:
  """On how much each agent's setting was chosen, a line each."""
  return '\n'.join(
      f'{chosen.agent}: {chosen.num_settings} of '
      f'{chosen.num_settings + chosen.num_left_out} settings, '
      f'{chosen.num_seeds} of {num_seeds} seeds, {chosen.num_problems} '
      'problems.'
      for chosen in choices if chosen.noise_std is None)


def _make_configs(choices: list[choice.Choice], board: sweeps.SweepConfig,
                  num_seeds: int) -> dict[str, str]:
  """File name -> config: of all noise levels, and of single ones."""
  of_all = {chosen.agent: chosen for chosen in choices
            if chosen.noise_std is None}
  chosen_by = ('held-out labels' if _SCORE.value == choice.SCORE
               else f'their {_SCORE.value}')
  header = _HEADER.format(
      chosen_by=chosen_by, tried=_tried(choices, num_seeds)).rstrip() + '\n'
  contents = {'tuned.py': header + _config_text(
      board, list(board.problem['noise_std']), list(of_all.values()), [
          {'agent': 'prior_only'},
          {'agent': 'exact_posterior', 'analytic': [True, False]}])}
  for level in board.problem['noise_std']:
    others = [chosen for chosen in choices if chosen.noise_std == level
              and chosen.agent_id not in (of_all[chosen.agent].agent_id,
                                          of_all[chosen.agent].papers_id)]
    if others:
      contents[f'tuned_e{level:g}.py'] = header + _config_text(
          board, [level], others, [])
  return contents


def _config_text(board: sweeps.SweepConfig, levels: list[float],
                 choices: list[choice.Choice],
                 more: list[dict[str, Any]]) -> str:
  """A config of the board's problems at some noise levels, but its header."""
  lines = ['']
  for name in _PROBLEM_NAMES:
    values = levels if name == 'noise_std' else list(board.problem[name])
    lines.append(f'{name.upper()} = {values}')
  lines.append(f'SEED = {list(board.seed)}')
  lines.append('\nAGENTS = [')
  for entry in [{'agent': chosen.agent, **{
      name: tuple(value) if isinstance(value, list) else value
      for name, value in chosen.written.items()}, **_size(chosen.config)}
                for chosen in choices] + more:
    text = pprint.pformat(entry, width=74, sort_dicts=False)
    lines.append('    ' + text.replace('\n', '\n    ') + ',')
  return '\n'.join(lines) + '\n]\n'


def _size(config) -> dict:
  """What the tuning config fixed: how many members an agent has."""
  return {name: config[name] for name in ('num_ensemble', 'num_options',
                                          'index_scale') if name in config}


def main(_) -> None:
  board = sweeps.load_config(_BOARD_CONFIG.value)
  if not set(_PROBLEM_NAMES) <= set(board.problem):
    raise ValueError('--board_config must be a config of NNGP problems, got '
                     f'{_BOARD_CONFIG.value!r}, of kind {board.kind!r}.')
  seeds = sweeps.load_config(_TUNING_CONFIG.value).seed
  num_seeds = len(seeds)
  rows, _ = columns.read_results(_RESULTS_DIR.value)
  others = sorted({row['problem']['seed'] for row in rows} - set(seeds))
  if others:
    raise ValueError(
        f'results_dir must hold rows of --tuning_config={_TUNING_CONFIG.value} '
        f'alone, got seed {others[0]}, which that config does not have.')
  papers = dict.fromkeys(unit.agent_id for unit in sweeps.expand(board))
  choices = choice.choose(rows, list(papers), _SCORE.value)
  of_board = None
  if _BOARD_RESULTS_DIR.value is not None:
    of_board = gains.make_table(
        columns.read_results(_BOARD_RESULTS_DIR.value)[0], choices)
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  lines = [{
      'agent': chosen.agent, 'noise_std': chosen.noise_std,
      f'{_SCORE.value}_mean': chosen.loss,
      f'papers_{_SCORE.value}_mean': chosen.papers_loss,
      'num_settings': chosen.num_settings,
      'num_settings_left_out': chosen.num_left_out,
      'num_problems': chosen.num_problems,
      'num_seeds': chosen.num_seeds, 'num_seeds_planned': num_seeds,
      'setting': dict(chosen.written)} for chosen in choices]
  contents = {'chosen.csv': csv_files.dicts_text(lines),
              **_make_configs(choices, board, num_seeds)}
  if of_board is not None:
    contents['gains.csv'] = csv_files.table_text(of_board)
  for name, content in contents.items():
    files.write_atomically(folder / name, content.encode())
  for chosen in choices:
    level = 'all' if chosen.noise_std is None else f'{chosen.noise_std:g}'
    print(f'{chosen.agent:16s} noise_std {level:5s} {chosen.loss:8.4f} '
          f'{dict(chosen.written)}')
  print(_tried(choices, num_seeds))
  print(', '.join(str(folder / name) for name in contents))


if __name__ == '__main__':
  cli.run_main(main)
