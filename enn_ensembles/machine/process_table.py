"""What Linux says of other processes, in /proc."""

import pathlib


def fields_of(pid: int | str) -> list[str] | None:
  """The fields of /proc/<pid>/stat from the state on; None of what has ended.

  That is, without the pid and the command: the state is field 0, the session 3
  and the start, in the kernel's ticks since the machine's, 19 (proc(5) counts
  them from 3). A zombie has ended, and where there is no /proc, all have.
  """
  try:
    text = pathlib.Path(f'/proc/{pid}/stat').read_text(errors='replace')
  except OSError:
    return None
  # The command stands in parentheses, and may hold anything, those as well.
  fields = text.rpartition(')')[2].split()
  return None if not fields or fields[0] == 'Z' else fields
