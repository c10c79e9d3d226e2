"""Kills a sweep again and again, and compares what it leaves with a plain run.

python -m experiments.kill_test --output_dir=DIR

A sweep of 66 work units is run once undisturbed. Then it is started, killed at
a random moment and started again, until that has happened --num_kills times
with each signal; sweeps that get done meanwhile are compared with the plain one
and begun anew, without the problems they have made. After every kill the
results folder must be readable, no unit that was written may change, and no
process may be left; no lock after a sweep. Then 16 processes share one sweep,
one results folder and one problem cache.

The files of the leaderboard must be those of the plain run, but for the columns
of timings.

Exit codes: 0 all is as it must be; 1 something is not; 2 bad input.
"""

import sys

from absl import flags

from enn_ensembles import checks
from enn_ensembles.machine import preemption
from enn_ensembles.studies.interrupted_sweeps import kill_test
from experiments import cli

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where everything goes; emptied first if a kill test '
    'made it.', required=True)
_NUM_KILLS = flags.DEFINE_integer('num_kills', 30, 'Kills with each signal.')
_SIGNALS = flags.DEFINE_list('signals', ['SIGKILL', 'SIGTERM'],
                             'What the sweep is killed with.')
_NUM_WORKERS = flags.DEFINE_list(
    'num_workers', ['1', '2'], 'Each kill is of a sweep with one of these, in '
    'turns.')
_NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', 16, 'Processes that share a sweep at the end; 0 for none.')
_QUICK = flags.DEFINE_bool(
    'quick', False, 'Half the units, of an agent that trains no network: '
    'seconds instead of minutes.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the moments.')

# Imports once and forks for every run: starting jax takes seconds. A line on
# stdin is a command, answered by a line on stdout (`processes.Launcher`).
_LAUNCHER = '''
import json, os, sys
from enn_ensembles.agents import batch_ensemble, ensemble, layer_ensemble
from enn_ensembles.agents import exact_posterior, map, mc_dropout, prior_only
from experiments import cli, run_sweep
for line in sys.stdin:
  command = json.loads(line)
  if 'wait' in command:
    _, status = os.waitpid(command['wait'], 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
    continue
  child = os.fork()
  if child:
    print(child, flush=True)
    continue
  os.setsid()
  log = os.open(command['log'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.dup2(log, 1)
  os.dup2(log, 2)
  sys.argv = ['run_sweep', *command['flags']]
  code = 70
  try:
    cli.run_main(run_sweep.main)
  except SystemExit as end:
    code = end.code or 0
  except BaseException:
    import traceback
    traceback.print_exc()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
'''


def _check_flags() -> list[int]:
  """The numbers of workers."""
  cli.names(_SIGNALS, ('SIGKILL', *preemption.SIGNALS))
  for flag, least in ((_NUM_KILLS, 1), (_NUM_PROCESSES, 0)):
    checks.check_count(f'--{flag.name}', flag.value, least)
  return cli.numbers(_NUM_WORKERS, int, checks.check_count)


def main(_) -> int | None:
  num_workers = _check_flags()
  test = kill_test.KillTest(kill_test.make_folder(_OUTPUT_DIR.value),
                            _LAUNCHER, _QUICK.value, _SEED.value)
  try:
    test.run_plain(sorted(set(num_workers)))
    for name in _SIGNALS.value:
      tally = test.kill(name, _NUM_KILLS.value, num_workers)
      print(f'{name}: {tally.kills} kills ({tally.kills_in_work} of them with '
            f'units written), {tally.rows_before_kill} units written before '
            f'kills, {tally.sweeps} sweeps done and equal to the plain run; '
            f'the longest way from signal to end {tally.longest_stop:.2f} s',
            flush=True)
    if _NUM_PROCESSES.value:
      test.share(_NUM_PROCESSES.value)
      print(f'{_NUM_PROCESSES.value} processes on one folder and one cache: '
            'equal to the plain run')
  except (kill_test.FailureError, TimeoutError) as failure:
    print(f'failed: {failure}', file=sys.stderr)
    return 1
  finally:
    test.close()
  return 0


if __name__ == '__main__':
  cli.run_main(main)
