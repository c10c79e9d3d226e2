"""Calls on files, counted from lines as strace writes them."""

import io

import count_file_calls

_RENAME = '7 rename("/r/units/.x.tmp", "/r/units/x.json") = 0'


def count(*lines, units_per_part=1000):
  counter = count_file_calls.Counter({'results': '/r', 'cache': '/r/cache'},
                                     units_per_part)
  for line in lines:
    counter.add(line)
  return counter


def test_calls_are_of_the_folder_that_they_name():
  found = count(
      '7 openat(AT_FDCWD</here>, "/r/units/x.json", O_RDONLY) = 3</r/units/x>',
      '7 openat(AT_FDCWD</r/units>, "y.json", O_RDONLY) = -1 ENOENT (No ...)',
      '7 openat(5</r>, "claims", O_RDONLY) = 6</r/claims>',
      '7 newfstatat(3</r/units/x.json>, "", {st_mode=...}, AT_EMPTY_PATH) = 0',
      '7 newfstatat(3</r/units/x.json>, "",  <unfinished ...>',
      '7 newfstatat(AT_FDCWD</here>, "/r/cache/a", {st_mode=...}, 0) = 0',
      '8 getdents64(6</r/claims>, 0x5 /* 2 entries */, 32768) = 48',
      '8 flock(6</r/claims/x.lock>, LOCK_EX|LOCK_NB) = 0',
      '7 stat("/rest/x", {st_mode=...}) = 0',
      # Neither of these is a file.
      '7 read(4<pipe:[12]>, ""..., 8) = 8',
      '7 write(4<socket:[12]>, ""..., 8) = 8',
      '7 mmap(NULL, 99, PROT_READ, MAP_PRIVATE, 3</r/units/x>, 0) = 0x7f',
      '7 +++ exited with 0 +++')
  assert found.calls == {
      ('start', 'results/units', 'open'): 2, ('start', 'results', 'open'): 1,
      ('start', 'results/units', 'stat of an open file'): 2,
      ('start', 'cache', 'stat of a name'): 1,
      ('start', 'results', 'listing'): 1,
      ('start', 'results/claims', 'flock'): 1,
      ('start', 'elsewhere', 'stat of a name'): 1}


def test_bytes_of_calls_that_others_interrupt():
  found = count('7 write(3</r/units/x>, ""..., 40) = 40',
                '7 read(3</r/cache/a>,  <unfinished ...>',
                '8 read(4</r/units/x>,  <unfinished ...>',
                '7 <... read resumed>""..., 99) = 20',
                '8 <... read resumed>""..., 99) = 0',
                '9 <... futex resumed>) = 5')
  assert found.num_bytes == {('start', 'results/units', 'write'): 40,
                             ('start', 'cache', 'read'): 20,
                             ('start', 'results/units', 'read'): 0}
  assert sum(found.calls.values()) == 3


def test_parts_begin_with_units():
  stat = '7 stat("/r/units/x.json", {}) = 0'
  found = count(stat, _RENAME, stat, stat, _RENAME, stat, _RENAME, stat,
                units_per_part=2)
  assert [found.calls[part, 'results/units', 'stat of a name']
          for part in ('start', 0, 2)] == [1, 3, 1]
  assert found.num_units == 3
  stream = io.StringIO()
  found.write(stream)
  lines = stream.getvalue().splitlines()
  assert lines[0] == 'part,folder,call,calls,bytes,part_ends_at_seconds'
  assert lines[1].startswith('start,results/units,stat of a name,1,0,')
