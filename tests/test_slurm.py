"""Scripts for clusters: what they would run, and a real Slurm.

The test with a real Slurm runs where `sinfo` answers; START_SLURM and
STOP_SLURM may name scripts that start and stop one (of Debian, slurm-wlm and
munge on one machine are enough).
"""

import csv
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import commands
import pytest

from enn_ensembles import results

ROOT = pathlib.Path(__file__).parents[1]
ARRAY = 'scripts/slurm_array.sh'

CONFIG = '''
INPUT_DIM = [2]
DATA_RATIO = [1, 2, 3]
NOISE_STD = [0.1, 1.0]
SEED = [0, 1]
# With the shares of three tasks each has some of the slow agent.
AGENTS = [{'agent': 'my_agent', 'level': [0., 1., 2.]},
          {'agent': 'prior_only'}]
'''

# As slow as a file next to it says, where there is one.
MY_AGENT = '''
import dataclasses
import pathlib
import time
import numpy as np

@dataclasses.dataclass(frozen=True)
class MyConfig:
  level: float = 0.

def make_agent(config: MyConfig):
  def agent(data, prior, key):
    slow = pathlib.Path(__file__).with_name('seconds')
    time.sleep(float(slow.read_text()) if slow.exists() else 0.)
    return lambda x, key: np.full(
        [len(x), 1], config.level + np.asarray(key)[-1] % 7)
  return agent
'''


@pytest.fixture(name='folder')
def make_folder(tmp_path):
  folder = tmp_path / 'shared folder'  # With a space in its name.
  folder.mkdir()
  (folder / 'config.py').write_text(CONFIG)
  (folder / 'my_agent.py').write_text(MY_AGENT)
  return folder


def run_script(script, *arguments, code=0, **environment):
  """The script's stdout, or its stderr where it fails as it should."""
  done = subprocess.run(
      [ROOT / script, *arguments], capture_output=True, text=True, check=False,
      cwd='/', env={**os.environ, 'PYTHON': sys.executable, **environment})
  assert done.returncode == code, (done.stdout, done.stderr)
  return done.stderr if code else done.stdout


def sweep_flags(folder, results_dir='results'):
  return [f'--config={folder / "config.py"}',
          f'--results_dir={folder / results_dir}',
          f'--agent_module={folder / "my_agent.py"}',
          '--agents=my_agent,prior_only', '--num_enn_samples=4',
          '--timing_seconds=0',
          f'--cache_dir={folder / "cache"}']


def jobs_of(text):
  """(sbatch's arguments, sbatch lines, the Python commands) of a dry run."""
  jobs = []
  for part in text.split('--- sbatch ')[1:]:
    lines = part.splitlines()
    script = '\n'.join(lines[1:])
    assert subprocess.run(['bash', '-n'], input=script, text=True,
                          check=False).returncode == 0
    jobs.append((
        shlex.split(lines[0]),
        [line.removeprefix('#SBATCH ') for line in lines
         if line.startswith('#SBATCH')],
        [line for line in lines if '-m experiments.' in line
         and not line.startswith('how far')]))
  return jobs


def test_slurm_dry_run(folder):
  text = run_script(
      ARRAY, '--dry_run', '--num_tasks=7', '--max_array_size=3',
      '--concurrency=2', '--problem_tasks=4', '--partition=gpu', '--gpus=2',
      '--cpus=8', '--account=me', '--time=1:00', '--mem=3G',
      '--setup=module load cuda', '--sbatch_args=--qos=low --nice',
      '--job_name=abc', '--signal_seconds=60', '--', *sweep_flags(folder),
      '--retry_failed')
  assert not list(folder.glob('results*'))  # Nothing was made.
  # What it costs, before anything is queued.
  assert text.startswith('cost: at least ') and ' on 14 workers, ' in text
  assert '  my_agent,level=0: an unknown time for 12 problems (unknown)' in text
  problems, *arrays, leaderboard = jobs_of(text)
  for _, lines, _ in (problems, *arrays, leaderboard):
    assert {'--requeue', '--open-mode=append', '--signal=B:TERM@60',
            '--partition=gpu', '--account=me', '--time=1:00', '--mem=3G',
            '--cpus-per-task=8'} <= set(lines)
  assert text.count('\nmodule load cuda\n') == 5
  assert '--array=0-3' in problems[1] and '--gres=gpu:2' not in problems[0]
  command, = problems[2]
  assert ' -m experiments.make_problems ' in command
  assert '--task_index="$SLURM_ARRAY_TASK_ID" --num_tasks=4' in command
  assert 'retry_failed' not in command and 'results_dir' not in command
  assert 'agent' not in command and 'num_enn_samples' not in command

  # Seven tasks where an array may have three, one array after the other.
  assert ['--array=0-2%2', '--array=0-2%2', '--array=0-0%2'] == [
      line for _, lines, _ in arrays for line in lines if 'array' in line]
  ids = [line.split()[2].rstrip(',') for line in text.splitlines()
         if line.startswith(('problems: job', 'sweep: job'))]
  for i, (arguments, _, (command,)) in enumerate(arrays):
    after = f'--dependency=afterok:{ids[0]}' + (
        f',afterany:{ids[i]}' if i else '')
    assert arguments == [after, '--kill-on-invalid-dep=yes', '--gres=gpu:2',
                         '--qos=low', '--nice']
    words = shlex.split(command.replace('$((', "'$((").replace('))', "))'"))
    assert words[1:3] == ['-m', 'experiments.run_sweep']
    assert set(sweep_flags(folder)) <= set(words)  # With the space in them.
    assert f'--task_index=$(({3 * i} + SLURM_ARRAY_TASK_ID))' in words
    assert {'--num_tasks=7', '--num_workers=2', '--grace_seconds=40',
            '--retry_failed'} <= set(words)
  assert leaderboard[0][1] == '--dependency=afterany:' + ':'.join(ids[1:])
  assert ' -m experiments.build_leaderboard ' in leaderboard[2][0]
  assert ' -m experiments.status ' in leaderboard[2][0]
  assert ' --agents=my_agent,prior_only ' in leaderboard[2][0].replace('\\', '')

  # Without limits: one array, independent of the others; no cache to fill.
  text = run_script(ARRAY, '--dry_run', '--num_tasks=4', '--max_array_size=3',
                    '--problem_tasks=0', '--', *sweep_flags(folder))
  *arrays, _ = jobs_of(text)
  assert [arguments for arguments, _, _ in arrays] == [
      ['--kill-on-invalid-dep=yes']] * 2
  assert '--num_workers=1' in arrays[0][2][0]


def test_a_dry_run_where_there_is_no_slurm(folder, tmp_path):
  """As on a laptop: neither sbatch nor scontrol, and no --max_array_size."""
  tools = tmp_path / 'tools'
  tools.mkdir()
  for name in ('bash', 'dirname', 'sed', 'cut', 'cat', 'env'):
    (tools / name).symlink_to(shutil.which(name))
  text = run_script(ARRAY, '--dry_run', '--num_tasks=1002', '--',
                    *sweep_flags(folder), PATH=str(tools))
  arrays = [line for _, lines, _ in jobs_of(text) for line in lines
            if 'array' in line]
  assert arrays == ['--array=0-0', '--array=0-1000', '--array=0-0']


@pytest.mark.parametrize('script, arguments, message', [
    *((ARRAY, [f'--{name}=a\n#SBATCH --uid=0'],
       f'--{name} must have no line break') for name in (
           'job_name', 'log_dir', 'output_dir', 'partition', 'account', 'time',
           'mem', 'sbatch_args')),
    (ARRAY, ['--job_name=a"b'], 'no quotation mark'),
    (ARRAY, ['--', '--results_dir=a\nrm -rf b'],
     '--results_dir must have no line break'),
    (ARRAY, ['--num_task=3'], "unknown argument '--num_task=3'"),
    (ARRAY, ['--num_tasks=0'], "--num_tasks must be >= 1, got '0'"),
    (ARRAY, ['--gpus=x'], "--gpus must be >= 0, got 'x'"),
    (ARRAY, ['--concurrency=-1'], "--concurrency must be >= 1, got '-1'"),
    (ARRAY, ['--', '--config=x.py'], '--results_dir must be given'),
    (ARRAY, ['--', '--results_dir=x', '--num_workers=2'],
     '--num_workers=2 is set by this script'),
    (ARRAY, ['--', '--config', 'x.py'], "as --name=value, got '--config'"),
    (ARRAY, ['--dry_run', '--', '--results_dir=x', '--config=nowhere.py'],
     "'nowhere.py', which does not exist"),
    ('scripts/multi_gpu.sh', [], 'there is no GPU here'),
    ('scripts/multi_gpu.sh', ['--gpus=2'], "unknown argument '--gpus=2'"),
    ('scripts/tpu_vm.sh', ['--num_hosts=2', '--chips=2,2,1'],
     "--host must be 0 to 1, got ''"),
    ('scripts/tpu_vm.sh', ['--num_hosts=2', '--host=1'],
     '--chips must be given'),
    ('scripts/tpu_vm.sh', ['--chips=4'], 'must be three numbers'),
])
def test_bad_arguments_are_one_line(script, arguments, message):
  error = run_script(script, *arguments, code=2, CUDA_VISIBLE_DEVICES='',
                     TPU_WORKER_ID='')
  assert error.startswith('error: ') and error.count('\n') == 1, error
  assert message in error


def test_other_scripts_dry_run():
  text = run_script('scripts/multi_gpu.sh', '--dry_run', '--workers_per_gpu=2',
                    '--', '--config=a b.py', CUDA_VISIBLE_DEVICES='0,3,5')
  assert shlex.split(text) == [
      'CUDA_VISIBLE_DEVICES=0,3,5', 'JAX_PLATFORMS=cuda,cpu', sys.executable,
      '-m', 'experiments.run_sweep', '--config=a b.py', '--num_workers=6']
  text = run_script('scripts/tpu_vm.sh', '--dry_run', '--num_hosts=4',
                    '--chips=2,2,1', '--', '--config=a.py', TPU_WORKER_ID='3')
  assert shlex.split(text) == [
      'env', 'JAX_PLATFORMS=tpu,cpu', 'TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1',
      'TPU_PROCESS_BOUNDS=1,1,1', sys.executable, '-m', 'experiments.run_sweep',
      '--config=a.py', '--task_index=3', '--num_tasks=4', '--num_workers=1']
  text = run_script('scripts/tpu_vm.sh', '--dry_run', '--', '--config=a.py')
  assert shlex.split(text) == [
      'env', 'JAX_PLATFORMS=tpu,cpu', sys.executable, '-m',
      'experiments.run_sweep', '--config=a.py', '--num_workers=1']


# A real Slurm.


def slurm(*command):
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  return done.stdout if done.returncode == 0 else ''


@pytest.fixture(name='cluster', scope='module')
def start_cluster():
  started = False
  if not (shutil.which('sinfo') and slurm('sinfo', '-h')):
    if not os.environ.get('START_SLURM'):
      pytest.skip('no Slurm answers here (sinfo), and START_SLURM names no '
                  'script that starts one')
    # Three tasks run at once, on whatever cores there are.
    subprocess.run([os.environ['START_SLURM']], check=True, timeout=300,
                   env={'SLURM_CPUS': '8', **os.environ})
    started = True
  num_cpus = sum(int(line.split('/')[-1]) for line in
                 slurm('sinfo', '-h', '-o', '%C').split())
  if num_cpus < 3:
    pytest.skip(f'the cluster has {num_cpus} CPUs, this needs 3 at once')
  yield
  if started and os.environ.get('STOP_SLURM'):
    subprocess.run([os.environ['STOP_SLURM']], check=True, timeout=120)


def states(job):
  """Task, or job, -> state."""
  lines = slurm('squeue', '-t', 'all', '-h', '-r', '-j', job, '-o',
                '%i|%T').splitlines()
  return dict(line.split('|') for line in lines)


def submit(folder, *arguments):
  """Job ids of a submission: problems, sweep, leaderboard."""
  text = run_script(ARRAY, *arguments, '--time=10', '--', *sweep_flags(folder))
  return [line.split()[2].rstrip(',') for line in text.splitlines()
          if ': job ' in line]


def read_tables(folder):
  """The leaderboard's files without what may differ between two runs."""
  tables = {}
  for name in ('leaderboard.csv', 'cells.csv', 'scores.csv'):
    with open(folder / name, newline='') as file:
      rows = list(csv.DictReader(file))
    tables[name] = [
        {key: value for key, value in row.items()
         if 'seconds' not in key and key != 'run_id'
         and not key.startswith((*results.TIMING_FIELDS,
                                 *results.COST_FIELDS))} for row in rows]
  return tables


def test_an_array_that_is_cancelled_and_requeued(folder, cluster):
  del cluster
  (folder / 'seconds').write_text('1.5')
  problems, sweep, leaderboard = submit(folder, '--num_tasks=3')
  log = lambda task: folder / 'results.logs' / f'enn-sweep-{sweep}_{task}.log'
  commands.wait_for(lambda: states(problems)[f'{problems}_0'] == 'COMPLETED')
  assert list((folder / 'cache').iterdir())
  running = lambda: len(list((folder / 'results' / 'running').glob('*.json')))
  commands.wait_for(lambda: running() == 3)

  # One is cancelled, one is told by its shell that its time is up, one is
  # preempted by the cluster.
  slurm('scancel', f'{sweep}_0')
  slurm('scancel', '--batch', '--signal=TERM', f'{sweep}_1')
  slurm('scontrol', 'requeue', f'{sweep}_2')
  commands.wait_for(lambda: 'is queued again' in log(1).read_text())
  commands.wait_for(lambda: states(sweep)[f'{sweep}_0'] == 'CANCELLED')
  (folder / 'seconds').unlink()
  commands.wait_for(
      lambda: set(states(sweep).values()) == {'COMPLETED', 'CANCELLED'})
  for task in (1, 2):
    text = log(task).read_text()  # Of both runs.
    assert text.count(' rows in ') == 2
  assert f'exit code 75: {sweep}_1 is queued again' in log(1).read_text()
  commands.wait_for(lambda: states(leaderboard) == {leaderboard: 'COMPLETED'})
  # The rest is missing, and said to be.
  text, = (path.read_text() for path in
           (folder / 'results.logs').glob('enn-leaderboard-*.log'))
  assert 'of 48 rows are done' in text and '48 of 48' not in text
  before = len(results.ResultsStore(folder / 'results').read_rows())
  assert 12 <= before < 48

  # Submitted again: what is missing is done, and nothing else.
  again = submit(folder, '--num_tasks=4', '--max_array_size=2',
                 '--concurrency=2', '--problem_tasks=0')
  assert len(again) == 3  # Two arrays.
  commands.wait_for(lambda: states(again[2]) == {again[2]: 'COMPLETED'})
  assert len(results.ResultsStore(folder / 'results').read_rows()) == 48
  for name in ('running', 'checkpoints'):
    folder_now = folder / 'results' / name
    assert not folder_now.exists() or not list(folder_now.iterdir())

  # The leaderboard is that of a plain run.
  subprocess.run([sys.executable, '-m', 'experiments.run_sweep',
                  *sweep_flags(folder, 'plain'), '--num_workers=1'], cwd=ROOT,
                 check=True, capture_output=True)
  subprocess.run([sys.executable, '-m', 'experiments.build_leaderboard',
                  f'--results_dir={folder / "plain"}',
                  f'--output_dir={folder / "plain.leaderboard"}'], cwd=ROOT,
                 check=True, capture_output=True)
  assert read_tables(folder / 'results.leaderboard') == read_tables(
      folder / 'plain.leaderboard')
