"""Imports once what takes seconds, and forks for every command.

`commands` starts it. A line on stdin is a request, answered by a line on
stdout: start a command, or tell whether one has ended. Nothing of `experiments`
may be imported here: commands have flags of the same names.

Worker processes of a command begin in spares: processes that were forked off
before the command has done anything, so that they are what `multiprocessing`
starts, an interpreter that has run nothing, but for its imports. A spare is a
child of the command, has its pipes, cores and environment, and ends with it.
"""

import fcntl
import gc
import importlib
import json
from multiprocessing import connection  # noqa: F401
from multiprocessing import resource_tracker
from multiprocessing import util
import os
import pkgutil
import runpy
import signal
import socket
import sys
import traceback

# A script's folder comes first; with `python -m` the current one does.
sys.path[0] = ''

# What a command imports, which takes seconds.
import haiku  # noqa: E402, F401
import jax.numpy  # noqa: E402, F401
import matplotlib.figure  # noqa: E402, F401
import optax  # noqa: E402, F401
import pandas  # noqa: E402, F401
import scipy.linalg  # noqa: E402
import scipy.stats  # noqa: E402, F401
import sklearn.datasets  # noqa: E402, F401
import tqdm  # noqa: E402, F401

import enn_ensembles  # noqa: E402, F401


def import_package():
  """Imports all modules that commands may import."""
  for folder in ('', 'agents.', 'problems.', 'report.', 'sweeps.'):
    package = importlib.import_module(f'enn_ensembles.{folder}'.rstrip('.'))
    for module in pkgutil.iter_modules(package.__path__,
                                       package.__name__ + '.'):
      if not module.name.endswith(('__main__', 'experiments')):
        importlib.import_module(module.name)


def end(code):
  """Ends this process; clearing up, as an interpreter does, takes long."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def run(function):
  """Runs what a process is for, and ends it."""
  try:
    function()
    code = 0
  except SystemExit as exit_:
    code = exit_.code or 0
  except BaseException:
    traceback.print_exc()
    code = 1
  end(code)


def run_command(request):
  """The main function of a command's process."""
  if request['new_session']:
    os.setsid()
  for number, name in enumerate((os.devnull, request['out'], request['err'])):
    mode = os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY
    os.dup2(os.open(name, mode), number)
  Spares(request['num_spares'])
  os.chdir(request['folder'])
  os.environ.clear()
  os.environ.update(request['environment'])
  sys.argv = request['argv']
  run(lambda: runpy.run_module(request['module'], run_name='__main__',
                               alter_sys=True))


class Spares:
  """Takes the place of what starts an interpreter for `multiprocessing`."""

  def __init__(self, num_spares):
    self._spares = []
    self._start_interpreter = util.spawnv_passfds
    for _ in range(num_spares):
      ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
      pid = os.fork()
      if not pid:
        for _, other in (*self._spares, (0, ours)):
          other.close()  # Only the command holds it: its end is heard.
        run(lambda theirs=theirs: run_spare(theirs))
      theirs.close()
      self._spares.append((pid, ours))
    util.spawnv_passfds = self.start

  def start(self, path, arguments, file_numbers):
    """The pid of a process that runs the arguments of an interpreter."""
    if '--multiprocessing-fork' not in arguments or not self._spares:
      return self._start_interpreter(path, arguments, file_numbers)
    pid, channel = self._spares.pop()
    request = {
        'program': arguments[arguments.index('-c') + 1],
        'file_numbers': list(file_numbers), 'folder': os.getcwd(),
        'environment': dict(os.environ),
        'cores': list(os.sched_getaffinity(0)),
        'blocked': list(signal.pthread_sigmask(signal.SIG_BLOCK, []))}
    with channel:
      socket.send_fds(channel, [json.dumps(request).encode()], file_numbers)
    return pid


def run_spare(channel):
  """The main function of a spare: waits for a program, if one comes."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Of a command's whole group.
  message, received, _, _ = socket.recv_fds(channel, 2**20, 250)
  if not message:
    return
  request = json.loads(message)
  channel.close()
  # Files keep their numbers; first all are moved out of each other's way.
  moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 500) for number in received]
  for number in received:
    os.close(number)
  for number, target in zip(moved, request['file_numbers'], strict=True):
    os.dup2(number, target)
    os.close(number)
  os.chdir(request['folder'])
  os.environ.clear()
  os.environ.update(request['environment'])
  os.sched_setaffinity(0, request['cores'])
  signal.pthread_sigmask(signal.SIG_SETMASK, request['blocked'])
  signal.signal(signal.SIGINT, signal.default_int_handler)
  sys.argv = ['-c', '--multiprocessing-fork']
  exec(request['program'], {'__name__': '__main__'})


def main():
  import_package()
  resource_tracker.ensure_running()  # One for all commands.
  gc.collect()
  gc.freeze()  # A collection would write to, and so copy, what was imported.
  for line in sys.stdin:
    request = json.loads(line)
    if 'pid' in request:
      pid, status = os.waitpid(request['pid'], os.WNOHANG)
      print(os.waitstatus_to_exitcode(status) if pid else 'null', flush=True)
      continue
    child = os.fork()
    if not child:
      run_command(request)
    print(child, flush=True)


if __name__ == '__main__':
  main()
