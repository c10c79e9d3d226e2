"""The study of which uncertainty is whose: attacks, flips, rules, a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import special
from scipy import stats

from enn_ensembles.machine import devices
from enn_ensembles.report import statistics
from enn_ensembles.studies import verdict_tables
from enn_ensembles.studies.decomposition import attacks
from enn_ensembles.studies.decomposition import definitions
from enn_ensembles.studies.decomposition import drawing
from enn_ensembles.studies.decomposition import fits
from enn_ensembles.studies.decomposition import images
from enn_ensembles.studies.decomposition import regression
from enn_ensembles.studies.decomposition import verdicts

RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 1, 0], np.int32)
X = RNG.uniform(-1., 1., (4, 3)).astype(np.float32)
WEIGHTS = np.array([1., -2., 0.5], np.float32)


def linear(x):
  """Logits (0, w x) of two equal members: class 1 where w x > 0."""
  scores = x @ WEIGHTS
  return jnp.stack([jnp.stack([0. * scores, scores], axis=-1)] * 2)


GRADIENT = attacks.loss_gradient(linear, LABELS)
# The loss of class 1 rises against w, that of class 0 along w.
AWAY = np.where(LABELS[:, None] == 1, -1., 1.) * np.sign(WEIGHTS)


def test_gradient_of_a_linear_model():
  odds = 1. / (1. + np.exp(-X @ WEIGHTS))
  np.testing.assert_allclose(
      GRADIENT(X), (odds - LABELS)[:, None] * WEIGHTS, rtol=1e-5)


def test_gradient_passes_through_the_mean_of_members():
  members = RNG.standard_normal((3, 3, 2)).astype(np.float32)

  def logits_of(x):
    return jnp.einsum('nd,jdc->jnc', x, members)

  def loss(x):
    probs = jax.nn.softmax(logits_of(x), axis=-1).mean(axis=0)
    return -jnp.log(probs[jnp.arange(4), LABELS]).sum()

  np.testing.assert_allclose(attacks.loss_gradient(logits_of, LABELS)(X),
                             jax.grad(loss)(X), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('key', [None, jax.random.PRNGKey(0)])
def test_attacks_on_a_linear_model_end_in_its_worst_corner(key):
  epsilon = np.array([0.1, 0.2, 0.3], np.float32)
  expected = np.clip(X + epsilon * AWAY, -1., 1.)
  for moved in (attacks.fgsm(GRADIENT, X, epsilon, -1., 1.),
                attacks.pgd(GRADIENT, X, epsilon, -1., 1., num_steps=5,
                            key=key)):
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)


def test_pgd_finds_what_one_step_misses():
  def gradient(x):  # The loss is largest at 0.5.
    return jnp.where(x < 0.5, 1., -1.)

  x = jnp.zeros((1, 1))
  stepped = attacks.fgsm(gradient, x, 1., -2., 2.)
  searched = attacks.pgd(gradient, x, 1., -2., 2., num_steps=25)
  assert abs(searched[0, 0] - 0.5) <= 0.1 and stepped[0, 0] == 1.


def test_definitions_hold():
  found = definitions.check_all()
  assert len(found) == 9 and all(check.holds for check in found)
  assert not found[0]._replace(found=0.1).holds


def test_flipped_labels():
  labels = RNG.integers(0, 5, 20_000).astype(np.int32)
  few, many = (fits.flip_labels(labels, share, 5, 3) for share in (.1, .4))
  assert few.dtype == np.int32
  assert np.mean(few != labels) == pytest.approx(0.1, abs=0.01)
  assert np.mean(many != labels) == pytest.approx(0.4, abs=0.02)
  # Those flipped first stay flipped, to the same class.
  np.testing.assert_array_equal(many[few != labels], few[few != labels])
  shifts = (many - labels)[many != labels] % 5
  assert np.bincount(shifts, minlength=5)[0] == 0
  assert stats.chisquare(np.bincount(shifts)[1:]).pvalue > 1e-4
  np.testing.assert_array_equal(fits.flip_labels(labels, 0., 5, 3), labels)


def test_entropy_of_flipped_labels_is_scipys():
  probs = [0.7] + [0.3 / 4] * 4
  assert fits.noise_entropy(0.3, 5) == pytest.approx(stats.entropy(probs))
  assert fits.noise_entropy(0., 5) == 0.
  assert fits.noise_entropy(1., 5) == pytest.approx(np.log(4.))


def test_nll_of_flipped_labels_is_the_mean_over_many_flips():
  labels = RNG.integers(0, 4, 50).astype(np.int32)
  log_probs = special.log_softmax(RNG.normal(size=(50, 4)), axis=1)
  of_flips = [-np.mean(log_probs[np.arange(50), fits.flip_labels(
      labels, 0.3, 4, seed)]) for seed in range(4000)]
  error = np.std(of_flips) / np.sqrt(len(of_flips))
  assert fits.flipped_nll(log_probs, labels, 0.3) == pytest.approx(
      np.mean(of_flips), abs=4 * error)
  certain = np.where(np.eye(4)[labels] > 0, 0., -np.inf)
  assert fits.flipped_nll(certain, labels, 0.) == 0.
  assert fits.flipped_nll(certain, labels, 0.3) == np.inf
  assert fits.flipped_nll(certain[::-1], labels, 0.3) == np.inf


# Rules. ----------------------------------------------------------------------


def test_leftover_share_of_known_tables():
  own = np.array([[0., 1., 2.], [0., 1., 2.]])
  assert verdicts.leftover_share(own) == pytest.approx(0.)
  assert verdicts.leftover_share(np.array([[0., 0.], [1., 1.]])) == 1.
  # Both causes alike, without an interaction: half is left over.
  assert verdicts.leftover_share(np.array([[0., 1.], [1., 2.]])) == 0.5
  # An interaction alone: nothing is the means'.
  assert verdicts.leftover_share(np.array([[1., -1.], [-1., 1.]])) == 1.


@pytest.mark.parametrize('low, high, sign, close', [
    (0.1, 0.15, 'holds', 'holds'), (-0.3, -0.25, 'fails', 'fails'),
    (-0.1, 0.1, 'undecided', 'holds'), (0.1, 0.3, 'holds', 'undecided')])
def test_verdicts_of_intervals(low, high, sign, close):
  found = statistics.Interval((low + high) / 2., low, high)
  assert verdicts.judge_sign(found) == sign
  assert verdicts.judge_close(found) == close
  assert verdicts.judge_sign(statistics.Interval(1.)) == 'undecided'


def make_grid(aleatoric, epistemic):
  """A table whose parts are functions of (size, share)."""
  return pd.DataFrame([
      {'dataset': 'd', 'agent': 'ensemble', 'aggregation': 'none', 'size': size,
       'share': share, 'seed': seed, 'nll': 1., 'flipped_nll': 1.,
       'part_correlation': 0.3,
       'aleatoric_uncertainty': aleatoric(size, share) + 1e-3 * seed,
       'epistemic_uncertainty': epistemic(size, share) + 1e-3 * seed}
      for size in (10, 100) for share in (0., 0.2, 0.4) for seed in range(3)])


def judge(grid):
  return {line.claim: line.verdict for line in verdicts.judge_grid(grid)
          if line.claim <= 5}


def test_parts_that_answer_to_their_own_causes_are_disentangled():
  grid = make_grid(lambda size, share: share, lambda size, share: 1. / size)
  assert judge(grid) == dict.fromkeys((2, 3, 4, 5), 'holds')
  found, = verdicts.disentanglement_errors(grid).to_dict('records')
  assert found['disentanglement_error'] == pytest.approx(0., abs=1e-12)
  assert found['cell_correlation'] == pytest.approx(0., abs=1e-12)
  assert found['point_correlation'] == pytest.approx(0.3)
  swapped = make_grid(lambda size, share: 1. / size, lambda size, share: share)
  assert judge(swapped) == {2: 'undecided', 3: 'fails', 4: 'undecided',
                            5: 'fails'}
  found, = verdicts.disentanglement_errors(swapped).to_dict('records')
  assert found['disentanglement_error'] == pytest.approx(1.)


# The command on as little as there can be. ----------------------------------


@pytest.mark.slow
def test_all_parts_on_tiny_settings():
  with devices.x64_mode(True):
    settings = images.ImageSettings(
        sizes=(40,), shares=(0., 0.5), seeds=(0, 1), num_members=2,
        num_batches=2, num_test=20, agents=('ensemble',),
        experts=('soft experts',), attacked=('single', 'ensemble'),
        epsilons=(0.1,), hidden_sizes=(3,))
    testbed = regression.TestbedSettings(
        2, 3., (0.1, 1.), (0, 1), num_members=4, num_batches=2,
        split_agents=('β = 0.5, prior',), response_agents=('bagging',))
    tables = {
        'grid': images.run_grid(settings, None),
        'experts': images.run_experts(settings, None),
        'robustness': images.run_robustness(settings, None),
        'split': regression.run_split(testbed),
        'response': regression.run_response(testbed)}
  tables = {name: pd.DataFrame(lines) for name, lines in tables.items()}
  assert len(tables['grid']) == 2 * 2 * len(images.AGGREGATIONS)
  lines = [line for part in ('grid', 'robustness', 'split', 'response')
           for line in getattr(verdicts, f'judge_{part}')(tables[part])]
  assert {line.claim for line in lines} == {2, 3, 4, 5, 6, 7, 8, 11, 12}
  clean = tables['grid'].loc[tables['grid']['share'] == 0.]
  np.testing.assert_allclose(clean['flipped_nll'], clean['nll'], rtol=1e-9)
  assert verdicts.text(lines).count('\n') > len(lines)
  assert len(verdict_tables.table(lines)) == len(lines)
  robust = tables['robustness'].set_index(['agent', 'seed', 'attack'])
  assert set(robust.index.get_level_values('attack')) == {
      'none', 'fgsm', 'pgd', 'pgd on single'}
  experts = tables['experts'].set_index('agent').loc['soft experts']
  assert (experts['epistemic_uncertainty'] == 0.).all()
  assert experts['experts_used'].between(1., 2.).all()
  for name, content in drawing.pictures(tables).items():
    assert name.endswith('.png') and content.startswith(b'\x89PNG')
