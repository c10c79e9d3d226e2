"""What tests took, from pytest's own account: makes seconds.csv.

    scripts/test.sh --durations=0 --durations-min=0.05 > LOG
    python tests/record_seconds.py LOG

`conftest.py` reads the file: tests that take long are `slow`, and the files
that take longest come first, so that none of them is what all wait for.
"""

import argparse
import collections
from collections.abc import Iterable
from collections.abc import Mapping
import pathlib
import re

PATH = pathlib.Path(__file__).parent / 'data' / 'seconds.csv'
_LINE = re.compile(
    r'([0-9.]+)s (?:call|setup|teardown)\s+tests/(\S+?)(?:\[.*)?')


def parse(lines: Iterable[str]) -> dict[str, float]:
  """Seconds per test, all its parameters together, by file::name."""
  seconds = collections.Counter()
  for line in lines:
    found = _LINE.fullmatch(line.rstrip('\n'))
    if found:
      seconds[found[2]] += float(found[1])
  return dict(seconds)


def read() -> dict[str, float]:
  """What was recorded."""
  lines = PATH.read_text(encoding='utf-8').splitlines()
  return {name: float(seconds) for seconds, name in (
      line.split(',') for line in lines[1:])}


def of_files(seconds: Mapping[str, float]) -> dict[str, float]:
  """The same per file."""
  files = collections.Counter()
  for name, value in seconds.items():
    files[name.split('::')[0]] += value
  return dict(files)


def main(path: str) -> None:
  with open(path, encoding='utf-8') as file:
    seconds = parse(file)
  PATH.write_text('seconds,test\n' + ''.join(
      f'{value:.2f},{name}\n'
      for name, value in sorted(seconds.items(), key=lambda item: -item[1])
      if value >= 0.1), encoding='utf-8')


if __name__ == '__main__':
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('log')
  main(parser.parse_args().log)
