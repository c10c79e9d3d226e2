"""How commands start and end: exit codes, one line per mistake, signals."""

import os
import pathlib
import signal
import subprocess
import sys

import commands
import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A command whose flag says what goes wrong.
_COMMAND = '''
import atexit
import signal
import sys
import time
import weakref
from absl import flags
from experiments import cli

_WHAT = flags.DEFINE_string('what', None, 'What goes wrong.', required=True)
_NAMES = flags.DEFINE_list('names', None, 'Names.')
_COUNT = flags.DEFINE_integer('count', 1, 'A number.', lower_bound=1)

class Late:
  def __del__(self, tell=signal.raise_signal, number=signal.SIGINT):
    tell(number)

def main(_):
  what = _WHAT.value
  if _NAMES.value is not None:
    print(what, *_NAMES.value)
  if what == 'value':
    raise ValueError('size must be >= 1,\\n  got 0.')
  if what == 'file':
    open('/nonexistent/file')
  if what == 'leave':
    sys.exit(0)
  if what == 'number':
    int(float('inf'))
  if what == 'interrupt':
    raise KeyboardInterrupt
  if what == 'interrupt_an_import':
    try:
      signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
      raise ImportError from error
  if what == 'terminate':
    try:
      signal.raise_signal(signal.SIGTERM)
    finally:
      print('A half written file is removed.', file=sys.stderr)
  if what == 'interrupt_twice':
    try:
      signal.raise_signal(signal.SIGINT)
    finally:
      signal.raise_signal(signal.SIGINT)
  if what == 'interrupt_the_end':
    atexit.register(signal.raise_signal, signal.SIGINT)
  if what == 'interrupt_the_very_end':
    global late
    late = Late()
  if what == 'interrupt_a_callback':
    class Key:
      pass
    key = Key()
    reference = weakref.ref(
        key, lambda _: signal.raise_signal(signal.SIGINT))
    del key
    time.sleep(60)
  if what == 'print':
    print('a\\x1b[31mb\\x07 \\ud800 \\u00e4')
    print('c\\x1b]0;title\\x07', file=sys.stderr)
  if what == 'much':
    print('line\\n' * 100_000)
  if what == 'bug':
    raise KeyError('a bug')
  return 1 if what == 'one' else None

if __name__ == '__main__':
  cli.run_main(main)
'''


@pytest.fixture(name='command', scope='module')
def make_command(tmp_path_factory):
  path = tmp_path_factory.mktemp('command') / 'command.py'
  path.write_text(_COMMAND)
  return path


def run(command, *flags, **environment):
  return subprocess.run(
      [sys.executable, str(command), *flags], capture_output=True, text=True,
      check=False, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT),
                                  'PYTHONIOENCODING': 'utf-8', **environment})


@pytest.mark.parametrize('flags, code, message', [
    (['--what=value'], 2, 'error: size must be >= 1, got 0.\n'),
    (['--what=file'], 2, 'error: /nonexistent/file: No such file or directory.'
     '\n'),
    (['--what=leave'], 2, 'error: something that was run called sys.exit(0); '
     'neither a config nor an agent may.\n'),
    (['--what=number'], 2, 'error: a number is too large: cannot convert float '
     'infinity to integer.\n'),
    ([], 2, 'error: --what must be given.\n'),
    (['--what=ok', '--count=many'], 2, 'error: --count must be an integer, got '
     "'many'.\n"),
    (['--what=ok', '--count=0'], 2, 'error: flag --count=0: 0 is not a '
     'positive integer.\n'),
    (['--what=ok', '--stderrthreshold=x'], 2, 'error: --stderrthreshold must '
     "be one of (case-insensitive) 'debug', 'info', 'warning', 'error', "
     "'fatal', or '0', '1', '2', '3', not 'x'.\n"),
    (['--what=ok', '--number=1'], 2, "error: Unknown command line flag 'number'"
     '.\n'),
    (['--what=ok', 'more'], 2, "error: unknown argument 'more': everything is "
     'given as --flag=value.\n'),
    (['--what=interrupt'], 130, 'stopped.\n'),
    # Python forgets what a callback raises.
    (['--what=interrupt_a_callback'], 130, 'stopped.\n'),
    # Libraries turn it into another error.
    (['--what=interrupt_an_import'], 130, 'stopped.\n'),
    (['--what=terminate'], 75, 'A half written file is removed.\n'
     'told to stop.\n'),
    (['--what=interrupt_twice'], 130, 'told to stop.\n'),
    # Of these Python would print a traceback, or end by the signal.
    (['--what=interrupt_the_end'], 130, 'told to stop.\n'),
    (['--what=interrupt_the_very_end'], 0, ''),
    (['--what=one'], 1, ''),
    (['--what=ok'], 0, '')])
def test_exit_codes_and_lines(command, flags, code, message):
  done = run(command, *flags)
  assert (done.returncode, done.stderr, done.stdout) == (code, message, '')


def test_flags_in_a_file_are_text(command, tmp_path):
  path = tmp_path / 'flags'
  path.write_text('--what=one\n')
  assert run(command, f'--flagfile={path}').returncode == 1
  path.write_bytes(b'\xff\xfe')
  done = run(command, f'--flagfile={path}')
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert done.stderr.startswith('error: --flagfile must name a file of flags')


def test_a_bug_keeps_its_traceback(command):
  done = run(command, '--what=bug')
  assert done.returncode == 1
  assert done.stderr.startswith('Traceback') and "KeyError: 'a bug'" in (
      done.stderr)
  # And so does a mistake, for whoever asks.
  done = run(command, '--what=value', '--verbosity=1')
  assert done.returncode == 1 and 'ValueError: size must' in done.stderr


def test_help_helps_and_ends_well(command):
  for flag in ('--help', '--helpshort', '--helpfull'):
    done = run(command, flag)
    assert done.returncode == 0 and '--what' in done.stdout
    assert not done.stderr


def test_escape_sequences_are_written_out(command):
  done = run(command, '--what=print')
  assert done.stdout == 'a\\x1b[31mb\\x07 \\ud800 \u00e4\n'
  assert done.stderr == 'c\\x1b]0;title\\x07\n'
  # What the encoding of the terminal lacks is no reason to end.
  done = run(command, '--what=print', PYTHONIOENCODING='ascii')
  assert done.stdout == 'a\\x1b[31mb\\x07 \\ud800 \\xe4\n'


def test_a_closed_pipe_ends_quietly(command):
  process = subprocess.Popen(
      [sys.executable, str(command), '--what=much'], cwd=ROOT, text=True,
      env={**os.environ, 'PYTHONPATH': str(ROOT)}, stdout=subprocess.PIPE,
      stderr=subprocess.PIPE)
  assert process.stdout.readline() == 'line\n'
  process.stdout.close()
  assert process.stderr.read() == ''
  assert process.wait() == 141
  process.stderr.close()


# Commands of the package.


def test_help_of_every_command():
  names = sorted(path.stem for path in (ROOT / 'experiments').glob('*.py')
                 if 'cli.run_main(main)' in path.read_text())
  assert 'run_sweep' in names and len(names) > 10
  for name in names:
    code, out, err = commands.run_module(f'experiments.{name}', '--help')
    assert code == 0 and not err, (name, err)
    assert '--' in out, name
    if name in ('run_sweep', 'status', 'make_problems'):
      # Those that read a config show its flags too.
      assert '--config' in out and '--agents' in out


@pytest.mark.parametrize('name, code', [
    ('SIGTERM', 75), ('SIGUSR1', 75), ('SIGINT', 130)])
def test_a_signal_during_the_imports(name, code, tmp_path):
  """It comes while jax is being imported, which says so and takes for ever."""
  (tmp_path / 'jax.py').write_text(
      'import time\nprint("importing", flush=True)\ntime.sleep(1200)\n')
  process = subprocess.Popen(
      [sys.executable, '-m', 'experiments.run_sweep', '--config=x.py'],
      cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      env={**os.environ, 'PYTHONPATH': str(tmp_path)})
  assert process.stdout.readline() == 'importing\n'
  process.send_signal(getattr(signal, name))
  out, err = process.communicate(timeout=600)  # Half of that sleep.
  assert (process.returncode, out, err) == (code, '', 'told to stop.\n')


def test_who_merely_imports_commands_keeps_the_handlers():
  code = ('import signal; before = signal.getsignal(signal.SIGTERM); '
          'import experiments; '
          'assert signal.getsignal(signal.SIGTERM) == before')
  assert subprocess.run([sys.executable, '-c', code], cwd=ROOT,
                        check=False).returncode == 0


def test_the_home_folder_is_expanded_in_every_flag(command, tmp_path):
  """Shells leave --flag=~/folder as it is."""
  said = run(command, '--what=~/a', '--names=~/b,c~,~/d', HOME=str(tmp_path))
  assert (said.returncode, said.stderr) == (0, '')
  assert said.stdout == f'{tmp_path}/a {tmp_path}/b c~ {tmp_path}/d\n'
