"""How the work of a sweep is divided among tasks and processes."""

import dataclasses
import pathlib

import pytest
import tiny_sweeps

from enn_ensembles import sweeps
from enn_ensembles.sweeps import cost_model

CONFIGS = pathlib.Path(__file__).parents[1] / 'testbed_configs'


@pytest.fixture(name='paper', scope='module')
def read_paper():
  """The paper's grid with its estimated costs."""
  units = sweeps.expand(sweeps.override(
      sweeps.load_config(CONFIGS / 'paper.py'), max_num_train=10_000))
  return units


@pytest.fixture(name='estimate', scope='module')
def make_estimate():
  """`estimate_seconds`, once per agent setting, family and number of seeds.

  Parts of a unit hold the same objects as the unit.
  """
  known = {}

  def estimate(unit):
    key = id(unit.agent_config), id(unit.family), len(unit.seeds)
    if key not in known:
      known[key] = sweeps.estimate_seconds(unit)
    return known[key]

  return estimate


@pytest.mark.parametrize('num_tasks', [1, 2, 7, 50])
def test_tasks_share_the_work_once_and_by_cost(paper, estimate, num_tasks):
  shares = [sweeps.select(paper, i, num_tasks, estimate)
            for i in range(num_tasks)]
  # Every row once, with the name that it has in the whole sweep.
  rows = lambda units: sorted(
      (u.agent_id, u.family.name, seed) for u in units for seed in u.seeds)
  assert rows(u for share in shares for u in share) == rows(paper)
  loads = [sum(map(estimate, share)) for share in shares]
  # A seed of the longest unit is 1.1 shares of 50.
  assert max(loads) <= 1.15 * sum(loads) / num_tasks
  if num_tasks == 1:
    assert shares[0] == paper
  # The same whatever the order of the units.
  for task in (0, num_tasks - 1):
    assert {u.run_id for u in sweeps.select(
        paper[::-1], task, num_tasks, estimate)} == {
            u.run_id for u in shares[task]}


def test_parts_have_the_rows_of_their_unit(paper):
  for unit in paper[::25]:
    parts = sweeps.split([unit], 50)
    assert [row for part in parts for row in part.row_ids()] == unit.row_ids()


def test_long_units_are_cut_by_seeds(monkeypatch):
  # As long as its number says, per seed, and 3 to start.
  monkeypatch.setattr(
      cost_model, 'estimate_seconds',
      lambda unit: 3 + unit.family.data_ratio * len(unit.seeds))
  unit = lambda ratio, num_seeds: tiny_sweeps.make_unit(
      10, ratio, (0.1, 1.), range(num_seeds))
  long, short = unit(100., 4), unit(10., 2)  # 403 and 23 of 426 seconds.
  assert sweeps.split([long, short], 1) == (long, short)
  # Above a quarter of it: 403 / 106.5 is 4 parts. The short one is whole.
  assert sweeps.split([long, short], 2) == (
      *(dataclasses.replace(long, seeds=(s,)) for s in range(4)), short)
  # A part takes at least as long as its start, 3: 12 are 4 parts.
  brief = unit(2., 6)
  assert [p.seeds for p in sweeps.split([brief], 100)] == [
      (0,), (1, 2), (3,), (4, 5)]
  assert sweeps.split([unit(0.1, 6)], 100) == (unit(0.1, 6),)


def test_tasks_are_filled_from_the_longest_unit_on(monkeypatch):
  # By hand: 7 | 5, then 4 to the second, 3 to the first, 3 to the second (9 <
  # 10), 2 to the first: 12 and 12. In turns it would be 14 and 10.
  monkeypatch.setattr(cost_model, 'estimate_seconds',
                      lambda unit: unit.family.data_ratio)
  # Of one seed each: nothing to cut.
  units = [tiny_sweeps.make_unit(10, ratio, seeds=(seed,))
           for seed, ratio in enumerate((3., 7., 2., 4., 5., 3.))]
  shares = [sorted(u.family.data_ratio for u in sweeps.select(units, i, 2))
            for i in range(2)]
  assert shares == [[2., 3., 7.], [3., 4., 5.]]


def test_bad_tasks():
  unit = tiny_sweeps.make_unit()
  assert sweeps.select([unit], 1, 2) == ()
  with pytest.raises(ValueError, match='below num_tasks = 2, got 2'):
    sweeps.select([unit], 2, 2)
  with pytest.raises(ValueError, match='task_index must be .* >= 0, got -1'):
    sweeps.select([unit], -1, 2)
  with pytest.raises(ValueError, match='num_tasks must be .* >= 1, got 0'):
    sweeps.select([unit], 0, 0)


def test_large_inputs_are_not_held_for_all_seeds_at_once():
  large = tiny_sweeps.make_unit(1000, 100., (0.1, 1.), range(5))
  small = tiny_sweeps.make_unit(1000, 1., (0.1, 1.), range(5))
  parts = sweeps.limit_inputs([large, small])
  assert [part.seeds for part in parts] == [(0, 1), (2, 3), (4,),
                                            (0, 1, 2, 3, 4)]
  assert sorted(row for part in parts[:3] for row in part.row_ids()) == sorted(
      large.row_ids())
