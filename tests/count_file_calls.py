"""Counts the calls on files that strace tells of a sweep, by folder and unit.

strace -f -y -qq -s 0 --seccomp-bpf -e trace=%file,%desc -e signal=none \
    -o '|python tests/count_file_calls.py OUT.csv results=DIR cache=DIR ...' \
    python -m experiments.run_sweep --results_dir=DIR --cache_dir=DIR ...

Each `name=folder` is an absolute path whose calls are counted together, those
in folders of it apart (results/units). A line of OUT.csv has the part of the
sweep, the folder, the kind of call, how many there were and the bytes that
they moved. Parts are 'start' (before the first unit is written), then the
number of units that were written when the part began, for every --units units
(1000). The part of a unit ends when its file takes its name, so that the
summary, the end of the claim and the next unit's rows are in the next: the
last part also has the end of the sweep.

The trace is never on the disk: that of 10,000 units would be gigabytes.
"""

import argparse
import collections
import csv
import os
import re
import sys
import time

_LINE = re.compile(r'(\d+) +(\w+)\((.*)')
_RESUMED = re.compile(r'(\d+) +<\.\.\. \w+ resumed>.* = (\d+)')
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
# A descriptor and the name in its folder. `-s 0` cuts what is read and written
# to `""...`, which is no name.
_DESCRIPTOR = re.compile(
    r'(?:\d+|AT_FDCWD)<([^>]*)>(?:, "((?:[^"\\]|\\.)*)"(?!\.\.\.))?')
_NO_NAME = re.compile(r'\d+<[^>]*>, ""(?!\.\.\.)')
_RESULT = re.compile(r' = (\d+)')
_KINDS = {
    'stat of a name': 'stat lstat newfstatat statx access faccessat faccessat2 '
                      'readlink readlinkat',
    'stat of an open file': 'fstat',
    'open': 'open openat creat',
    'listing': 'getdents getdents64',
    'rename': 'rename renameat renameat2',
    'unlink': 'unlink unlinkat rmdir',
    'mkdir': 'mkdir mkdirat',
    'fsync': 'fsync fdatasync',
    'flock': 'flock',
    'read': 'read pread64 readv',
    'write': 'write pwrite64 writev ftruncate'}
_KIND = {name: kind for kind, names in _KINDS.items()
         for name in names.split()}


class Counter:
  """Counts lines of a trace.

  Args:
    folders: name -> absolute path.
    units_per_part: units after which a new part begins.
  """

  def __init__(self, folders, units_per_part):
    self._folders = sorted(((os.path.join(path, ''), name)
                            for name, path in folders.items()),
                           key=lambda item: -len(item[0]))
    self._units_per_part = units_per_part
    self._start = time.monotonic()
    # Process -> what it waits for: strace cuts calls that others interrupt.
    self._unfinished = {}
    self.num_units = 0
    self.part = 'start'
    self.calls = collections.Counter()
    self.num_bytes = collections.Counter()
    self.part_ends = {}  # Part -> seconds from the start of the trace.

  def add(self, line):
    """Counts one line."""
    found = _LINE.match(line)
    if found is None:
      resumed = _RESUMED.match(line)
      if resumed is not None:
        key = self._unfinished.pop(resumed[1], None)
        if key is not None:
          self.num_bytes[key] += int(resumed[2])
      return
    process, call, arguments = found.groups()
    path = _path(arguments)
    if path is None:
      return
    kind = _KIND.get(call, 'other')
    # Its flag may be missing where the call was cut.
    if call in ('newfstatat', 'statx') and _NO_NAME.match(arguments):
      kind = 'stat of an open file'
    key = self.part, self._folder(path), kind
    self.calls[key] += 1
    if kind in ('read', 'write'):
      result = _RESULT.search(arguments)
      if result is not None:
        self.num_bytes[key] += int(result[1])
      elif 'unfinished' in arguments:
        self._unfinished[process] = key
    if kind == 'rename' and self._folder(path).endswith('/units'):
      self._end_unit()

  def _end_unit(self):
    if self.num_units % self._units_per_part == 0:
      self.part_ends[self.part] = time.monotonic() - self._start
      self.part = self.num_units
    self.num_units += 1

  def _folder(self, path):
    """The name of the folder that a path is in, with the folder in it."""
    for prefix, name in self._folders:
      if path.startswith(prefix):
        inside, _, rest = path[len(prefix):].partition('/')
        return f'{name}/{inside}' if rest else name
      if os.path.join(path, '') == prefix:
        return name
    return 'elsewhere'

  def write(self, stream):
    """Writes the table as CSV."""
    self.part_ends[self.part] = time.monotonic() - self._start
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(['part', 'folder', 'call', 'calls', 'bytes',
                     'part_ends_at_seconds'])
    for key, calls in self.calls.items():
      writer.writerow([*key, calls, self.num_bytes.get(key, 0),
                       f'{self.part_ends[key[0]]:.1f}'])


def _path(arguments):
  """The absolute path that a call is about; None for pipes and the like."""
  found = _DESCRIPTOR.match(arguments)
  if found is not None:
    path = os.path.join(found[1], found[2]) if found[2] else found[1]
  else:
    found = _NAME.match(arguments)
    path = found[1] if found is not None else ''
  return path if os.path.isabs(path) else None


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('output')
  parser.add_argument('folders', nargs='+', metavar='name=folder')
  parser.add_argument('--units', type=int, default=1000)
  flags = parser.parse_args()
  counter = Counter(dict(item.split('=', 1) for item in flags.folders),
                    flags.units)
  for line in sys.stdin:
    counter.add(line)
  with open(flags.output, 'w') as stream:
    counter.write(stream)


if __name__ == '__main__':
  main()
