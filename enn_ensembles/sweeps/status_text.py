"""The status of a sweep as tables of plain text, and durations as text."""

from collections.abc import Sequence

from enn_ensembles.report import text_tables
from enn_ensembles.sweeps import sweep_status

_COLUMNS = ('done', 'diverged', 'running', 'failed', 'missing', 'of',
            'time left')
_LONGEST_LIST = 20  # Different errors that are shown.


def duration_text(seconds: float) -> str:
  """Seconds as one number with a readable unit."""
  for limit, divisor, name in ((90, 1, 's'), (5400, 60, 'min'),
                               (172800, 3600, 'h')):
    if seconds < limit:
      return f'{seconds / divisor:.0f} {name}' if divisor == 1 else (
          f'{seconds / divisor:.1f} {name}')
  return f'{seconds / 86400:.1f} days'


def _table(what: str, lines: Sequence[Sequence[str]]) -> list[str]:
  """A name and _COLUMNS on each line, and an empty line below."""
  return [*text_tables.aligned([[what, *_COLUMNS], *lines],
                               range(1, 1 + len(_COLUMNS))), '']


def _count_texts(counts: sweep_status.Counts) -> list[str]:
  """The texts of _COLUMNS."""
  texts = [str(value) if value else '-' for value in (
      counts.done, counts.diverged, counts.running, counts.failed,
      counts.missing)]
  left = duration_text(counts.seconds_left) if (
      counts.running or counts.missing) else '-'
  return [*texts, str(counts.expected), left]


def format_text(status: sweep_status.Status, num_processes: int,
                num_dead: int = 0) -> str:
  """The status as tables of plain text.

  Args:
    status: the status.
    num_processes: worker processes that are alive.
    num_dead: processes that ended without saying so.
  """
  lines = []
  by_agent = [[name, *_count_texts(counts)]
              for name, counts in status.by_agent().items()]
  by_family = [[name, *_count_texts(counts)]
               for name, counts in status.by_family().items()]
  total = ['total', *_count_texts(status.total)]
  lines += _table('agent', [*by_agent, total])
  lines += _table('problems', [*by_family, total])
  open_groups = [[f'{agent} on {family}', *_count_texts(counts)]
                 for (agent, family), counts in status.groups.items()
                 if counts.done < counts.expected]
  if open_groups and len(open_groups) < len(status.groups):
    lines += _table('not done', open_groups)
  if status.errors:
    lines.append('rows that are not ok:')
    for error in status.errors[:_LONGEST_LIST]:
      agents = ', '.join(error.agent_labels[:3]) + (
          f' and {len(error.agent_labels) - 3} more'
          if len(error.agent_labels) > 3 else '')
      lines.append(f'  {error.num_rows} {error.status} ({agents}): '
                   f'{error.message}')
    if len(status.errors) > _LONGEST_LIST:
      lines.append(f'  and {len(status.errors) - _LONGEST_LIST} other messages')
    lines.append('')
  return '\n'.join(lines + _summary(status, num_processes, num_dead)) + '\n'


def _summary(status: sweep_status.Status, num_processes: int,
             num_dead: int) -> list[str]:
  """The last lines: how much, how long, who."""
  total = status.total
  lines = [f'{total.done} of {total.expected} rows are done'
           + (f', {total.failed} failed (--retry_failed runs them again)'
              if total.failed else '') + '.']
  if total.running or total.missing:
    how = ('measured' if status.num_measured == len(status.groups) else
           f'measured for {status.num_measured} of {len(status.groups)} agent '
           'settings on families of problems, estimated from them elsewhere'
           if status.num_measured else 'estimated, nothing is measured yet')
    lines.append(f'About {duration_text(total.seconds_left)} of one process '
                 f'are left ({how}).')
    if status.num_unknown:
      lines.append(f'{status.num_unknown} units of user-defined agents are not '
                   'in that: nobody knows yet how long they take.')
    if num_processes:
      lines.append(f'{num_processes} processes are at work: about '
                   f'{duration_text(total.seconds_left / num_processes)}.')
    else:
      lines.append('Nobody is at work on it.')
  if num_dead:
    lines.append(f'{num_dead} processes ended without saying so (killed, or '
                 'their machine is gone); what they were computing is missing.')
  return lines
