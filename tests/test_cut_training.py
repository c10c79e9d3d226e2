"""Training that is cut: it goes on where it stopped, and changes no digit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_sweeps

from enn_ensembles import base
from enn_ensembles import results
from enn_ensembles.agents import ensemble
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import preemption
from enn_ensembles.machine import progress
from enn_ensembles.sweeps import network_units
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import workers
from enn_ensembles.training import loop

pytestmark = pytest.mark.usefixtures('forget_requests')

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((3, 8, 2)), RNG.standard_normal((3, 2, 8, 1))
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (11, 12, 13)])
AGENT = ensemble.make_agent(ensemble.EnsembleConfig(
    num_ensemble=2, hidden_sizes=(4,), num_batches=150, batch_size=5))


def train(checkpoint=None, **options):
  return loop.train(AGENT, X, Y, base.Gaussian(np.array([0.1, 1.])), KEYS,
                    checkpoint=checkpoint, **options)


def check_equal(ours, theirs):
  ours, theirs = ((t.params, t.state, t.final_loss) for t in (ours, theirs))
  for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    np.testing.assert_array_equal(a, b)  # Bit for bit.


class StopAt(checkpoints.Checkpoint):
  """The process is told to stop at one of the offers."""

  def __init__(self, folder, offer):
    super().__init__(folder, 'test', {'test': 1}, seconds_between=1e-6)
    self.countdown = offer
    self.num_restored = 0

  def restore(self, key):
    part = super().restore(key)
    self.num_restored += part is not None
    return part

  def offer(self, key, make):
    self.countdown -= 1
    if self.countdown == 0:
      preemption.request_stop()
    super().offer(key, make)


@pytest.mark.parametrize('steps, offers', [(None, (1, 1)), (40, (1, 4, 9))])
def test_training_goes_on_where_it_stopped(tmp_path, steps, offers):
  options = {'steps_between_checkpoints': steps}
  whole = train(**options)
  for offer in offers:
    with pytest.raises(preemption.Preempted):
      train(StopAt(tmp_path, offer), **options)
    preemption._requested.clear()
    last = StopAt(tmp_path, 10**9)
    files = len(list((tmp_path / 'checkpoints').iterdir()))
    assert files >= 1
  again = train(last, **options)
  assert last.num_restored == files
  check_equal(again, whole)
  # What was restored counts as trained.
  assert again.train_seconds > 0
  last.clear()
  assert not list((tmp_path / 'checkpoints').iterdir())


def test_cut_training_is_the_same_training():
  heard = []
  with progress.listen(heard.append):
    cut = train(steps_between_checkpoints=7)
  check_equal(train(), cut)
  texts = [stage.text for stage in heard]
  # A counter that is too fast is not heard again, but every loop begins.
  assert texts[:2] == ['compiling', 'seed 1 of 3, step 0 of 150']
  assert 'seed 3 of 3, step 0 of 150' in texts


def test_only_long_training_is_cut():
  options = unit_results.RunOptions('nowhere')
  steps_of = network_units._steps_between_checkpoints
  assert steps_of(tiny_sweeps.make_training_unit(), 10, options) is None
  # Products of 2 x 4 and 5 x 1 weights forward (the first layer adds its
  # biases), of 3 x 4 and 5 x 1 for their gradients, of 4 for the gradient of
  # what goes into the last; 2 operations each, 2 members, 2 noise levels, 100
  # points, 6e10 per second: 4.5e-7 s a step.
  long = tiny_sweeps.make_training_unit(num_batches=10**9)
  # The first call takes five seconds.
  assert steps_of(long, 10**9, options) == pytest.approx(
      5 / (2 * (8 + 5 + 12 + 5 + 4) * 2 * 2 * 100 / 6e10), rel=0.01)
  # Of a user-defined agent nothing is known: a twentieth comes first.
  own = dataclasses.replace(long, agent='own')
  assert steps_of(own, 1000, options) == 50


def test_a_unit_goes_on_where_it_stopped(tmp_path, monkeypatch):
  unit = tiny_sweeps.make_training_unit(num_batches=50)
  results.open_store(tmp_path / 'store', create=True)
  options = unit_results.RunOptions(str(tmp_path / 'store'))
  whole, _ = one_unit.run_unit(unit, options)
  offer, count = checkpoints.Checkpoint.offer, []

  def stop_at_the_second(self, key, make):
    count.append(key)
    if len(count) == 2:
      preemption.request_stop()
    offer(self, key, make)

  monkeypatch.setattr(checkpoints.Checkpoint, 'offer', stop_at_the_second)
  with pytest.raises(preemption.Preempted):
    list(workers.run([unit], options, 1))
  preemption._requested.clear()
  store = results.ResultsStore(tmp_path / 'store')
  assert not store.read_rows()
  assert len(list((tmp_path / 'store' / 'checkpoints').iterdir())) == 2
  outcome, = workers.run([unit], options, 1)
  assert outcome.num_ok == 6 and len(count) == 3  # One seed was left.
  assert not list((tmp_path / 'store' / 'checkpoints').iterdir())
  scores = lambda rows: {row['row_id']: (row['scores'], row['curve'])
                         for row in rows}
  assert scores(store.read_rows()) == scores(whole)  # Bit for bit.


def test_trainings_on_fewer_points_have_checkpoints_of_their_own(tmp_path):
  """Labels that rank members must not have trained them before."""
  unit = dataclasses.replace(
      tiny_sweeps.make_training_unit(num_batches=50),
      selections=('none', 'val_nll', 'val_nll_budget'))
  folder = tmp_path / 'store'
  results.open_store(folder, create=True)
  options = unit_results.RunOptions(str(folder))
  whole, _ = one_unit.run_unit(unit, options)
  kept = checkpoints.Checkpoint(folder, 'unit', {}, seconds_between=0.)
  for _ in range(2):  # Nothing is kept yet; then all of it is.
    rows, _ = one_unit.run_unit(unit, options, kept)
    assert [(row['row_id'], row['scores'], row['curve']) for row in rows] == [
        (row['row_id'], row['scores'], row['curve']) for row in whole]
