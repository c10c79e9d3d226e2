"""Which share of the work is a task's, as job arrays say it."""

import pytest

from enn_ensembles.machine import job_arrays

SLURM = {'SLURM_ARRAY_TASK_ID': '7', 'SLURM_ARRAY_TASK_COUNT': '5',
         'SLURM_ARRAY_TASK_MIN': '3', 'SLURM_ARRAY_TASK_MAX': '11',
         'SLURM_ARRAY_TASK_STEP': '2'}
PBS = {'PBS_ARRAY_INDEX': '3'}
AWS = {'AWS_BATCH_JOB_ARRAY_INDEX': '3', 'AWS_BATCH_JOB_ARRAY_SIZE': '4'}
GOOGLE = {'BATCH_TASK_INDEX': '0', 'BATCH_TASK_COUNT': '4'}


@pytest.mark.parametrize('given, environment, task', [
    ((None, None), {}, (0, 1, '')),
    ((2, 5), {}, (2, 5, '')),
    ((None, 1), {}, (0, 1, '')),
    # What is given goes first.
    ((2, 5), {**SLURM, **AWS}, (2, 5, '')),
    # 3, 5, 7, 9, 11: 7 is the third.
    ((None, None), SLURM, (2, 5, 'SLURM_ARRAY_TASK_ID')),
    ((None, 12), SLURM, (7, 12, 'SLURM_ARRAY_TASK_ID')),
    ((None, 5), PBS, (3, 5, 'PBS_ARRAY_INDEX')),
    ((None, None), AWS, (3, 4, 'AWS_BATCH_JOB_ARRAY_INDEX')),
    ((None, None), GOOGLE, (0, 4, 'BATCH_TASK_INDEX')),
    # Empty is not set.
    ((None, None), {**GOOGLE, 'SLURM_ARRAY_TASK_ID': ''},
     (0, 4, 'BATCH_TASK_INDEX')),
])
def test_the_task_of_a_job_array(given, environment, task):
  assert job_arrays.choose_task(*given, environment) == job_arrays.Task(*task)


@pytest.mark.parametrize('given, environment, message', [
    ((1, None), {}, 'task_index 1 was given without num_tasks'),
    ((None, 2), {}, 'num_tasks 2 was given without task_index, and no job arr'),
    ((None, 0), {}, 'num_tasks must be an integer >= 1, got 0'),
    ((2, 2), {}, 'task_index must be below num_tasks = 2, got 2'),
    ((-1, 2), {}, 'task_index must be an integer >= 0, got -1'),
    ((None, None), PBS, 'PBS_ARRAY_INDEX is 3, but such arrays do not say how'),
    ((None, 3), PBS,
     r'task_index \(from PBS_ARRAY_INDEX\) must be below num_tasks = 3, got 3'),
    ((None, None), {'SLURM_ARRAY_TASK_ID': '1'},
     'but SLURM_ARRAY_TASK_COUNT is not set: give num_tasks'),
    ((None, None), {**SLURM, 'SLURM_ARRAY_TASK_ID': 'x'},
     "SLURM_ARRAY_TASK_ID must be a whole number, got 'x'"),
    # --array=3,7,11 and the like: 2 divides no such range of 5.
    ((None, None), {**SLURM, 'SLURM_ARRAY_TASK_COUNT': '4'},
     'has 4 tasks between 3 and 11, which is no regular division'),
    ((None, None), {**SLURM, **AWS}, 'both SLURM_ARRAY_TASK_ID and AWS_BATCH'),
])
def test_bad_job_arrays(given, environment, message):
  with pytest.raises(ValueError, match=message):
    job_arrays.choose_task(*given, environment)
