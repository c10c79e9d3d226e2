"""The comparison with PyTorch, of programs that only say how long they took."""

import collections
import shutil
import sys

import pytest

from enn_ensembles.machine import devices
from enn_ensembles.studies.speed import own_cases
from enn_ensembles.studies.speed import rivals

# Each answer is a tenth less than the one before; `routine_`
# cases are not there.
_PROGRAM = '''
import json, sys
seconds = float(sys.argv[1])
for line in sys.stdin:
  asked = json.loads(line)
  if asked['case'].startswith('routine_'):
    print(json.dumps({'error': 'not there'}), flush=True)
    continue
  seconds *= 0.9
  print(json.dumps({'seconds': seconds, 'version': sys.argv[2]}), flush=True)
'''


def program(tmp_path, seconds, version):
  path = tmp_path / 'program.py'
  path.write_text(_PROGRAM)
  return [sys.executable, '-S', str(path), str(seconds), version]


@pytest.mark.skipif(shutil.which('taskset') is None, reason='needs taskset')
def test_ratios_are_of_the_fastest_repeats(tmp_path):
  by_case = collections.defaultdict(dict)
  for lines in rivals.compare(
      program(tmp_path, 1., 'ours'), program(tmp_path, 10., 'theirs'), 2,
      str(tmp_path)):
    assert len({line['case'] for line in lines}) == 1  # A case at a time.
    for line in lines:
      by_case[line['case']][line['runner']] = line
  assert set(by_case) == set(own_cases.CASES)
  first = by_case['mlp_ensemble']
  # Warmed up once, then twice: 0.9^3, 0.9^2. No line without an answer.
  assert set(first) == {'hand', 'hand, one thread', 'ours', 'our sweep'}
  assert first['hand']['seconds'] == pytest.approx(10. * 0.9**3)
  assert first['hand']['slowest'] == pytest.approx(10. * 0.9**2)
  assert first['hand']['ratio_to_ours'] == pytest.approx(10.)
  assert first['hand']['goal'] == 6. and first['ours']['goal'] is None
  assert first['ours']['member_images_per_second'] == pytest.approx(
      468 * 128 * 4 / 0.9**3)
  # Trainings side by side, one per core, count once each.
  num_cores = len(devices.available_cores())
  assert first['our sweep']['seconds'] == pytest.approx(0.9**3 / num_cores)
  assert set(by_case['small_cnn_layer_ensemble']) == {'ours', 'our sweep'}
  assert (first['hand']['version'], first['ours']['version']) == (
      'theirs', 'ours')


@pytest.mark.skipif(shutil.which('taskset') is None, reason='needs taskset')
def test_a_program_that_ends_is_named(tmp_path):
  dead = [sys.executable, '-S', '-c', '']
  with pytest.raises(RuntimeError, match='ended without an answer'):
    list(rivals.compare(dead, dead, 1, str(tmp_path)))


def test_every_case_of_ours_trains():
  for case in ('mlp_batch_ensemble', 'mlp_ensemble'):
    assert own_cases.train(case, 1) > 0.
  with pytest.raises(ValueError, match="case must be one of .* got 'x'"):
    own_cases.train('x', 1)
