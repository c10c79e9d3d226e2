"""How every command of this folder starts, reads its flags, and ends.

Exit codes that all commands share: 0 all is well; 2 a mistake of the user, also
in a flag, in one line; 75 ended by SIGTERM before it was done, the same command
may be run again; 130 ended by Ctrl-C; 141 whoever read its output has closed
the pipe, as `| head` does. A bug keeps its traceback and ends with 1.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import logging as python_logging
import os
import re
import signal
import sys
import threading
import types
from typing import Any

from absl import app
from absl import flags
from absl import logging

from enn_ensembles import checks
from enn_ensembles.machine import plain_text
from enn_ensembles.machine import preemption
from experiments import early_signals

BAD_INPUT = 2
CLOSED_PIPE = 141

_NOT_BOOLEAN = re.compile(
    r"=\S*: \('Non-boolean argument to boolean flag', (.*)\)")
_NOT_A_NUMBER = {
    re.compile(f'flag (--[a-z_0-9]+)=(.*): {said}: .*', re.DOTALL): what
    for said, what in ((r'invalid literal for int\(\) with base 10',
                        'an integer'),
                       ('could not convert string to float', 'a number'))}
_MISSING_FLAG = re.compile('Flag (--[a-z_0-9]+) must have a value other than N')


def run_main(main: Callable[[Sequence[str]], int | None]) -> None:
  """Parses the flags, runs `main(argv)` and exits with what it returns.

  What a user did wrong is a ValueError, or an OSError about a file, whose
  message is printed as one line. With --verbosity=1 both keep their traceback.
  What is printed holds no terminal escape sequence, whatever names and messages
  hold.

  Args:
    main: the command; its return value is the exit code, None is 0.
  """

  # At level info jax lists the accelerators that it did not find.
  python_logging.getLogger('jax').setLevel(python_logging.WARNING)
  early_signals.install()
  sys.unraisablehook = _interrupt_again
  streams = sys.stdout, sys.stderr
  sys.stdout, sys.stderr = map(plain_text.PrintableStream, streams)

  def guarded(argv: Sequence[str]) -> int | None:
    try:
      _hear_signals()
      if len(argv) > 1:
        raise ValueError(f'unknown argument {argv[1]!r}: everything is given '
                         'as --flag=value.')
      code = _call(main, argv)
      sys.stdout.flush()  # A closed pipe shows here, not after the end.
      return code
    except BrokenPipeError:
      return _end_at_closed_pipe()
    except KeyboardInterrupt:
      return _stop()
    except SystemExit as end:
      # No command calls it: with exit code 0 a sweep would seem to be done.
      return _refuse(f'something that was run called sys.exit({end.code!r}); '
                     'neither a config nor an agent may.')
    except ValueError as error:
      if logging.level_debug():
        raise
      return _refuse(str(error))
    except OverflowError as error:
      if logging.level_debug():
        raise
      return _refuse(f'a number is too large: {error}.')
    except OSError as error:
      if error.filename is None or logging.level_debug():
        raise
      return _refuse(f'{error.filename}: {error.strerror}.')
    except BaseException as error:
      if _has_no_platform(error) and not logging.level_debug():
        platforms = os.environ[_PLATFORMS]
        return _refuse(f'jax finds no device of {_PLATFORMS}={platforms!r} '
                       f'here. {error}')
      # A bug: Python prints it, in colours where it does that.
      sys.stdout, sys.stderr = streams
      raise

  try:
    try:
      app.run(guarded, flags_parser=_parse_flags)
    finally:
      # Of Ctrl-C in what libraries do at the end Python would print tracebacks.
      early_signals.install()
  except KeyboardInterrupt:  # Between two steps of what stands above.
    sys.exit(_stop())


# The variable that says which devices jax is to use.
_PLATFORMS = 'JAX_PLATFORMS'


def _has_no_platform(error: BaseException) -> bool:
  """Whether jax does not find the devices that the user has told it to use.

  Of a platform for which nothing is installed, jax's error is a bare
  AssertionError: jax, where it is loaded, is asked again.
  """
  if not os.environ.get(_PLATFORMS) or 'jax' not in sys.modules or (
      not isinstance(error, (RuntimeError, AssertionError))):
    return False
  if str(error).startswith('Unable to initialize backend'):
    return True
  try:
    sys.modules['jax'].default_backend()
  except (RuntimeError, AssertionError):
    return True
  return False


# The signal that has told this command to stop, if one has.
_told: list[int] = []


def _hear_signals() -> None:
  for number in early_signals.SIGNALS:
    signal.signal(number, _interrupt)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
  """A signal while a command runs: files that are half written are removed.

  A second one ends the command wherever it is.
  """
  del frame
  early_signals.install()
  _told.append(number)
  raise KeyboardInterrupt


def _call(main: Callable[[Sequence[str]], int | None],
          argv: Sequence[str]) -> int | None:
  """What `main` returns; KeyboardInterrupt if a signal became another error.

  An import that is interrupted may say that a library is not there.
  """
  try:
    return main(argv)
  except BaseException as error:
    if _told:
      raise KeyboardInterrupt from error
    raise


def _stop() -> int:
  """Says that a signal ends this command; its exit code."""
  if _told and _told[0] != signal.SIGINT:
    print('told to stop.', file=sys.stderr)
    return preemption.EXIT_CODE
  print('stopped.', file=sys.stderr)
  return early_signals.INTERRUPTED


def _interrupt_again(unraisable: Any) -> None:
  """A signal that Python prints and forgets comes again a moment later.

  That is so where it arrives inside of a callback, as those of weak references
  are: pictures and jax have thousands.
  """
  if unraisable.exc_type is not KeyboardInterrupt or not _told:
    sys.__unraisablehook__(unraisable)
    return
  number = _told.pop()
  _hear_signals()
  timer = threading.Timer(0.01, os.kill, (os.getpid(), number))
  timer.daemon = True
  timer.start()


def _refuse(message: str) -> int:
  print('error:', ' '.join(message.split()), file=sys.stderr)
  return BAD_INPUT


def _end_at_closed_pipe() -> int:
  """Keeps Python from flushing into the closed pipe at its end."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, sys.stdout.fileno())
  os.close(nowhere)
  return CLOSED_PIPE


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """The arguments that are no flags; exits where there is nothing to run."""
  try:
    rest = flags.FLAGS(argv)
    _expand_home()
    return rest
  except flags.Error as error:
    missing = _MISSING_FLAG.search(str(error))
    # Of a Boolean flag the message is a tuple.
    message = _NOT_BOOLEAN.sub(r' must be true or false, got \1', str(error))
    for pattern, what in _NOT_A_NUMBER.items():
      if found := pattern.fullmatch(message):
        message = f'{found[1]} must be {what}, got {found[2]!r}'
    sys.exit(_refuse(f'{missing[1]} must be given.' if missing else
                     message.rstrip('.') + '.'))
  except UnicodeDecodeError as error:  # The only text that is read here.
    sys.exit(_refuse(f'--flagfile must name a file of flags as text: {error}.'))
  except ValueError as error:  # Of absl's own flags.
    sys.exit(_refuse(f'{error}.'))
  except SystemExit:
    sys.exit(0)  # --help, which absl ends with 1.


def _expand_home() -> None:
  """Puts the home folder in the place of `~` at the start of flags' values.

  Shells do so before a word, and leave --flag=~/folder as it is. No flag takes
  a text that begins so and is no path.
  """
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    if isinstance(flag.value, str):
      flag.value = os.path.expanduser(flag.value)
    elif isinstance(flag.value, list):
      flag.value = [os.path.expanduser(value) if isinstance(value, str)
                    else value for value in flag.value]


def numbers(flag: flags.FlagHolder, kind: Callable[[str], Any],
            check: Callable[[str, Any], None] | None = None,
            are_different: bool = True) -> list[Any]:
  """The values of a list flag, which is given or has a default, as numbers.

  Args:
    flag: the flag.
    kind: int or float.
    check: one of `checks`: called with the flag's name and each value.
    are_different: whether there is at least one value, and none twice.

  Raises:
    ValueError: one is no number of this kind, or they are not allowed.
  """
  try:
    values = [kind(text) for text in flag.value]
  except ValueError:
    what = 'integers' if kind is int else 'numbers'
    raise ValueError(f'--{flag.name} must be {what} with commas between, got '
                     f'{",".join(flag.value)!r}.') from None
  if check is not None:
    for value in values:
      check(f'every value of --{flag.name}', value)
  if are_different:
    _check_different(flag, values)
  return values


def numbers_if_given(flag: flags.FlagHolder, kind: Callable[[str], Any],
                     check: Callable[[str, Any], None]) -> list[Any] | None:
  """As `numbers`; None if the flag was not given."""
  return None if flag.value is None else numbers(flag, kind, check)


def names(flag: flags.FlagHolder,
          choices: Collection[str] | None = None) -> list[str]:
  """The values of a list flag that must be given: at least one, none twice.

  Args:
    flag: the flag.
    choices: what is allowed; None for whatever is no empty text.

  Raises:
    ValueError: they are not allowed.
  """
  for value in flag.value:
    if choices is not None:
      checks.check_choice(f'every value of --{flag.name}', value, choices)
    elif not value:
      raise ValueError(f'--{flag.name} must be names with commas between, got '
                       f'{",".join(flag.value)!r}.')
  _check_different(flag, flag.value)
  return flag.value


def _check_different(flag: flags.FlagHolder, values: Sequence[Any]) -> None:
  if not values:
    raise ValueError(f'--{flag.name} must be a list of at least one value, got '
                     'none.')
  checks.check_different(f'--{flag.name}', values)


def check_is_folder(flag: flags.FlagHolder) -> None:
  """ValueError if a flag names something else than a folder."""
  if flag.value and not os.path.isdir(flag.value):
    raise ValueError(f'--{flag.name} must be a folder, got {flag.value!r}, '
                     'which is none.')


def refuse(unused: Sequence[flags.FlagHolder], reason: str) -> None:
  """Checks that nobody expects anything of flags that a command only shares.

  Args:
    unused: flags without a default, or with the default [].
    reason: why they are of no use to the command; no full stop.

  Raises:
    ValueError: one was given.
  """
  for flag in unused:
    if flag.present:
      raise ValueError(f'--{flag.name} is of no use here: {reason}.')


# No machine has a million terabytes.
_MOST_MEMORY_MB = 1e12


def memory_mb(flag: flags.FlagHolder) -> Any:
  """The value of a flag that is memory in MB, or is not given.

  Raises:
    ValueError: it is no finite number > 0, or more than any machine has.
  """
  if flag.value is not None:
    checks.check_positive(f'--{flag.name}', flag.value, _MOST_MEMORY_MB)
  return flag.value
