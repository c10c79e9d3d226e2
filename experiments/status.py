"""Says how far a sweep is: done, running, failed, missing, and the time left.

python -m experiments.status --config=testbed_configs/paper.py \
    --results_dir=DIR

It reads, and may be asked at any time, by anybody who may read the folder; give
it the flags that narrow the sweep too, but for those that say which share a
process has. Several folders with commas between count together. `running` is
what live processes say that they compute.

Exit codes: 0 every row is there and none failed; 3 rows are missing or running;
1 none is, but some failed; 2 bad input.
"""


from absl import flags

from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import files
from enn_ensembles.machine import heartbeats
from enn_ensembles.report import csv_files
from enn_ensembles.sweeps import status_text
from enn_ensembles.sweeps import sweep_status
from experiments import cli
from experiments import grid_flags
from experiments import problem_flags

flags.adopt_module_key_flags(grid_flags)

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that the sweep writes to.', required=True)
_CSV = flags.DEFINE_string(
    'csv', None, 'Also write the counts of every agent setting on every family '
    'of problems to this file.')

_NOT_DONE = 3


def _running_rows(workers: list[heartbeats.Worker]
                  ) -> tuple[set[str], dict[str, float]]:
  """Rows that live processes work on, and what units say they still take.

  Returns:
    The row ids; and seconds by the first row id of each unit that says so.
  """
  row_ids, seconds_left = set(), {}
  for worker in workers:
    for entry in worker.entries:
      try:
        row_ids.update(entry['row_ids'])
        seconds = entry.get('seconds_left')
        if isinstance(seconds, (int, float)):
          seconds_left[entry['row_ids'][0]] = max(
              0., seconds - worker.age_seconds)
      except (KeyError, TypeError, IndexError, OverflowError):
        continue  # Of another version of this program.
  return row_ids, seconds_left


def _csv_text(status: sweep_status.Status) -> str:
  names = ('expected', 'ok', 'diverged', 'failed', 'running', 'missing',
           'seconds_left')
  columns = ('agent_label', 'problems', *names)
  return csv_files.dicts_text([dict(zip(columns, (
      *group, *(getattr(counts, name) for name in names))))
                               for group, counts in status.groups.items()],
                              columns)


def main(_) -> int:
  grid_flags.refuse_task()
  if _CSV.value is not None:
    files.check_file(_CSV.value, '--csv')
  units = sweeps.expand(grid_flags.read_sweep(), problem_flags.agent_modules())
  # A list flag of an empty text has no values.
  stores = [results.open_store(folder) for folder in _RESULTS_DIR.value or ['']]
  workers = [worker for store in stores
             for worker in heartbeats.read(store.results_dir)]
  alive = [worker for worker in workers if worker.alive]
  # Read after the heartbeats: what was finished in between counts as done.
  rows = results.scan_rows(stores, sweep_status.ROW_FIELDS)
  status = sweep_status.make_status(units, rows.values(), *_running_rows(alive))
  if _CSV.value is not None:
    files.write_atomically(_CSV.value, _csv_text(status).encode())
  print(status_text.format_text(
      status, sum(worker.num_workers for worker in alive),
      len(workers) - len(alive)), end='')
  for worker in alive:
    job = ' '.join(f'{name}={value}' for name, value in worker.job.items())
    print(f'  {worker.host} pid {worker.pid}: task {worker.task}, '
          f'{len(worker.entries)} units running' + (f', {job}' if job else ''))
    for entry in worker.entries:
      if isinstance(entry.get('stage'), str):
        print(f'    {entry["stage"]}')
  total = status.total
  if total.running or total.missing:
    return _NOT_DONE
  return 1 if total.failed else 0


if __name__ == '__main__':
  cli.run_main(main)
