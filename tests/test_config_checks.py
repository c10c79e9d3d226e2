"""Each check passes what is allowed and names what is not."""


import numpy as np
import pytest

from enn_ensembles import checks
from enn_ensembles.agents import map as map_agent

NAN, INF = float('nan'), float('inf')

GOOD = [
    (checks.check_count, [1, 7, np.int64(3)]),
    (checks.check_scale, [0, 0., 1e300, np.float32(2)]),
    (checks.check_positive, [1e-300, 1, np.float64(2)]),
    (checks.check_rate, [0, 0.5, 0.999]),
    (checks.check_flag, [True, False]),
    (checks.check_sizes, [(), (1,), (50, 50)]),
]
BAD = [
    (checks.check_count, [0, -1, 1.5, 2., True, '3', None, NAN, [1]]),
    (checks.check_scale, [-1e-9, NAN, INF, -INF, '1', None, True, 1j]),
    (checks.check_positive, [0, 0., -1., NAN, INF, '1', None, True]),
    (checks.check_rate, [-0.1, 1, 1., 2, NAN, '0.5', None, True]),
    (checks.check_size, [0, 1.5, 2**20 + 1, True, '3']),
    (checks.check_flag, [0, 1, None, 'True']),
    (checks.check_sizes, [50, [50], (0,), (50, -1), (2**31,), (5.,), (True,),
                          None, '50']),
]


def pairs(table):
  return [(check, value) for check, values in table for value in values]


@pytest.mark.parametrize('check, value', pairs(GOOD))
def test_good_values_pass(check, value):
  check('field', value)


@pytest.mark.parametrize('check, value', pairs(BAD))
def test_bad_values_are_named(check, value):
  with pytest.raises(ValueError, match='field must be .*got') as info:
    check('field', value)
  named = [repr(value)] + ([repr(v) for v in value]
                           if isinstance(value, tuple) else [])
  assert any(text in str(info.value) for text in named)
  assert '\n' not in str(info.value)


def test_minimum_of_a_count():
  checks.check_count('seed', 0, minimum=0)
  with pytest.raises(ValueError, match='seed must be an integer >= 0, got -1'):
    checks.check_count('seed', -1, minimum=0)


def test_choices_are_listed():
  checks.check_choice('kind', 'a', ('a', 'b'))
  with pytest.raises(ValueError, match="kind must be one of 'a', 'b'; got 'c'"):
    checks.check_choice('kind', 'c', ('a', 'b'))


@pytest.mark.parametrize('value', [
    True, 1., np.float32(1.), [1], np.array([1, 2]), {}, None, NAN])
def test_what_only_equals_a_choice_is_none(value):
  checks.check_choice('number', 1, (0, 1))
  checks.check_choice('number', np.int64(1), (0, 1))
  for choices in ((0, 1), {0: 'a', 1: 'b'}):
    with pytest.raises(ValueError, match='number must be one of 0, 1; got '):
      checks.check_choice('number', value, choices)


def test_integers_that_no_array_and_no_float_holds():
  for check in (checks.check_scale, checks.check_positive, checks.check_rate):
    with pytest.raises(ValueError, match='field must be .*, got 1000'):
      check('field', 10**400)
  checks.check_count('field', 2**32)
  with pytest.raises(ValueError, match='field must be at most 2..32, got 42'):
    checks.check_count('field', 2**32 + 1)


@pytest.mark.parametrize('field, value', [
    ('hidden_sizes', (0,)), ('learning_rate', 0.), ('num_batches', 0),
    ('batch_size', 1.5)])
def test_training_fields(field, value):
  fields = {'hidden_sizes': (5,), 'learning_rate': 1e-3, 'num_batches': 10,
            'batch_size': 5}
  map_agent.MapConfig(**fields)
  with pytest.raises(ValueError, match=field):
    map_agent.MapConfig(**{**fields, field: value})
