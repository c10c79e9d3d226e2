"""Problems: draws, ground truth, cache, brought data and bad input."""

import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import references
import scipy.special
import scipy.stats

from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles.machine import file_locks
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import cache_entries

_NOISE_STDS = (0.01, 0.1, 1.)
_BROUGHT_ARRAYS = ('x_train', 'y_train', 'x_test', 'x_val', 'test_mean',
                   'test_std', 'val_mean', 'val_std', 'y_val',
                   'test_covariances', 'weights')
_ARRAYS = (*_BROUGHT_ARRAYS, 'y_test', 'f_test', 'x_dyadic', 'dyadic_mean',
           'dyadic_covariances')
# Of the problem in test_draws_are_what_they_were.
_GOLDEN_X = [1.0728144953615955,
             -0.12462106568265847, 1.062879778065521]
_GOLDEN_Y = [0.6576935287819168, 0.36516345573278414, 0.36570993645018113]
_GOLDEN_Y_VAL = [0.3462793262512699, -0.09027237147769608, -0.3719874537877427]
_GOLDEN_MEAN = [-0.15195995705651627, -0.42618650314280215,
                -0.04524137606200235]
# Small enough to be made often.
_SMALL = dict(num_test=7, num_val=5)


def _small(noise_std: float = 0.1, **fields) -> problems.ProblemConfig:
  return problems.ProblemConfig(**{
      **dict(input_dim=3, data_ratio=4, noise_std=noise_std, seed=0), **_SMALL,
      **fields})


def _make(config: problems.ProblemConfig, cache_dir=None,
          **settings) -> problems.Problem:
  """One problem."""
  problem, = problems.make_problems([config], cache_dir, **settings)
  return problem


def _make_group(input_dim: int, data_ratio: float, noise_stds, seed: int,
                reference: str = 'bayes', cache_dir=None, solver: str = 'auto',
                progress=None, **fields) -> list[problems.Problem]:
  """The problems of a seed, one per noise level."""
  return problems.make_problems(
      [problems.ProblemConfig(input_dim, data_ratio, noise_std, seed, reference,
                              **fields) for noise_std in noise_stds],
      cache_dir, solver, progress=progress)


def _assert_same(a: problems.Problem, b: problems.Problem,
                 names: tuple[str, ...] = _ARRAYS) -> None:
  for name in names:
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)


def _draws(config: problems.ProblemConfig) -> dict[str, np.ndarray]:
  """All that is random in a problem, recovered from two of its noise levels."""
  low, high = problems.make_problems(
      [dataclasses.replace(config, noise_std=noise_std)
       for noise_std in (1., 3.)])
  noise = (high.y_train - low.y_train) / 2
  kernel = kernels.nngp(config.kernel, low.x_train)
  factor = np.linalg.cholesky(kernel + 1e-6 * np.eye(len(kernel)))
  normals = np.linalg.solve(factor, low.y_train - noise)
  return dict(x_train=low.x_train, x_test=low.x_test, x_val=low.x_val,
              function=normals, noise=noise)


# Contents.


@pytest.mark.parametrize('reference', ['bayes', 'enn2021'])
def test_ground_truth_is_the_posterior_of_the_data(reference):
  for problem in _make_group(5, 4, _NOISE_STDS, 3, reference,
                                             num_test=20, num_val=10):
    kernel = kernels.nngp(problem.kernel, problem.x_train)
    variance = problem.noise_std**2
    if reference == 'enn2021':
      variance *= np.trace(kernel) / 20
    for x, mean, std in (
        (problem.x_test, problem.test_mean, problem.test_std),
        (problem.x_val, problem.val_mean, problem.val_std)):
      true_mean, covariance = references.gp_posterior(
          kernel, kernels.nngp(problem.kernel, x, problem.x_train),
          kernels.nngp(problem.kernel, x), problem.y_train[:, 0], variance)
      np.testing.assert_allclose(mean, true_mean, rtol=0, atol=1e-11)
      np.testing.assert_allclose(std, np.sqrt(np.diag(covariance) + 1e-6),
                                 rtol=0, atol=1e-11)


def test_shapes_types_and_what_agents_are_told():
  config = _small()
  problem = _make(config)
  shapes = dict(x_train=(12, 3), y_train=(12, 1), x_test=(7, 3), x_val=(5, 3),
                test_mean=(7,), test_std=(7,), val_mean=(5,), val_std=(5,),
                y_test=(7, 1), f_test=(7, 1), x_dyadic=(300, 3),
                dyadic_mean=(30, 10), dyadic_covariances=(30, 10, 10))
  for name, shape in shapes.items():
    array = getattr(problem, name)
    assert (array.shape, array.dtype) == (shape, np.float64)
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 0
  assert problem.data.x is problem.x_train
  assert problem.data.y is problem.y_train
  assert problem.prior == base.PriorKnowledge(
      (3,), 12, base.Gaussian(0.1), config.kernel)
  assert problem.prior.input_dim == 3 and problem.prior.noise_std == 0.1
  assert problem.validation.x is problem.x_val
  assert problem.validation.y is problem.y_val
  assert problem.problem_id == config.problem_id


def test_noise_levels_share_all_but_the_noise():
  group = _make_group(3, 4, _NOISE_STDS, 0, **_SMALL)
  assert [problem.noise_std for problem in group] == list(_NOISE_STDS)
  for problem in group:
    for name in ('x_train', 'x_test', 'x_val'):
      assert getattr(problem, name) is getattr(group[0], name)
  # y = f + noise_std n, with one f and one n: linear in noise_std.
  low, middle, high = (problem.y_train for problem in group)
  np.testing.assert_allclose((middle - low) / 0.09, (high - low) / 0.99,
                             rtol=0, atol=1e-13)


def test_defaults_are_a_thousand_points():
  problem = _make(problems.ProblemConfig(1, 2, 0.1, 0))
  assert problem.x_test.shape == problem.x_val.shape == (1000, 1)
  assert problem.reference == 'bayes'


def test_targets_have_the_variance_that_the_posterior_assumes():
  """y^T (K + eps^2 I)^-1 y is chi-squared with T degrees of freedom."""
  total, degrees = {'bayes': 0., 'enn2021': 0.}, 0
  for seed in range(20):
    problem = _make(problems.ProblemConfig(
        10, 10, 1., seed, num_test=1, num_val=1))
    kernel = kernels.nngp(problem.kernel, problem.x_train)
    for reference in total:
      variance = posterior.noise_variance(1., np.diag(kernel), reference)
      covariance = kernel + variance * np.eye(100)
      y = problem.y_train[:, 0]
      total[reference] += y @ np.linalg.solve(covariance, y)
    degrees += 100
  p_value = scipy.stats.chi2.sf(total['bayes'], degrees)
  assert 0.001 < p_value < 0.999
  # The published posterior takes the noise for smaller than it is.
  assert scipy.stats.chi2.sf(total['enn2021'], degrees) < 1e-6


@pytest.mark.parametrize('input_dim, published', [(10, 0.16), (100, 0.10)])
def test_gap_between_the_references(input_dim, published):
  """A Bayesian agent scores 0.16 and 0.10 at (D, 10, 1) against enn2021."""
  gaps = []
  for seed in range(5):
    config = problems.ProblemConfig(input_dim, 10, 1., seed, num_val=1)
    truth = _make(
        dataclasses.replace(config, reference='enn2021'))
    agent = _make(config)
    p, q = truth.test_std + 1e-3, agent.test_std + 1e-3
    gaps.append(np.mean(
        np.log(q / p) - 0.5
        + (p**2 + (truth.test_mean - agent.test_mean)**2) / (2 * q**2)))
  assert np.mean(gaps) == pytest.approx(published, rel=0.25)


# Draws.


def test_draws_are_standard_normal():
  for name, values in _draws(problems.ProblemConfig(10, 50, 1., 0)).items():
    p_value = scipy.stats.kstest(values.ravel(), 'norm').pvalue
    assert p_value > 1e-3, name
    assert len(np.unique(values)) == values.size, name


def test_draws_are_independent():
  """No two share numbers: published test inputs were the normals behind y."""
  streams = {}
  for config in (problems.ProblemConfig(10, 50, 1., 0),
                 problems.ProblemConfig(10, 50, 1., 1),
                 problems.ProblemConfig(50, 10, 1., 0),
                 problems.ProblemConfig(10, 100, 1., 0)):
    for name, values in _draws(config).items():
      streams[config.problem_id, name] = values.ravel()[:500]
  assert len(streams) == 20
  for (a, first), (b, second) in itertools.combinations(streams.items(), 2):
    correlation = np.corrcoef(first, second)[0, 1]
    # 190 pairs: 4.5 standard errors.
    assert abs(correlation) < 4.5 / np.sqrt(500), (a, b)


def test_labels_at_x_val_are_of_the_function():
  """Given y_train, y_val - its mean is N(0, posterior variance + noise)."""
  scaled = []
  for noise_std in (0.1, 1.):
    for seed in range(100):
      problem = _make(_small(noise_std, seed=seed))
      assert problem.y_val.shape == (5, 1)
      variance = problem.val_std**2 + noise_std**2
      scaled.append((problem.y_val[:, 0] - problem.val_mean)
                    / np.sqrt(variance))
  scaled = np.concatenate(scaled)
  assert abs(scaled.mean()) < 4 / np.sqrt(scaled.size / 5)  # Points of a seed
  assert abs(scaled.std() - 1) < 4 / np.sqrt(2 * scaled.size / 5)  # depend.
  # Noise levels share the function and the draw of the noise.
  low, mid, high = _make_group(3, 4, (1., 2., 3.), 0, **_SMALL)
  np.testing.assert_allclose(mid.y_val - low.y_val, high.y_val - mid.y_val,
                             rtol=0, atol=1e-12)
  noise = (mid.y_val - low.y_val)[:, 0]
  assert not np.isin(noise, (mid.y_train - low.y_train)[:, 0]).any()


def test_labels_at_x_test_are_of_the_function():
  """Given y_train and f at x_val, f at x_test is of its posterior."""
  scaled = []
  for seed in range(150):
    problem = _make(_small(1e-3, seed=seed))
    # f at x_val is all but known from y_val: it joins the training data.
    x = np.concatenate([problem.x_train, problem.x_val])
    y = np.concatenate([problem.y_train, problem.y_val])[:, 0]
    mean, covariance = references.gp_posterior(
        kernels.nngp(problem.kernel, x),
        kernels.nngp(problem.kernel, problem.x_test, x),
        kernels.nngp(problem.kernel, problem.x_test), y, 2e-6)
    factor = np.linalg.cholesky(covariance + 1e-6 * np.eye(7))
    scaled.append(np.linalg.solve(factor, problem.f_test[:, 0] - mean))
  # Independent standard normals, if all joint covariances are right.
  scaled = np.array(scaled)
  assert abs(scaled.mean()) < 4 / np.sqrt(scaled.size)
  assert abs(scaled.std() - 1) < 4 / np.sqrt(2 * scaled.size)
  assert np.abs(np.corrcoef(scaled.T) - np.eye(7)).max() < 4.5 / np.sqrt(150)
  # y = f + noise_std n.
  low, high = _make_group(3, 4, (1., 3.), 0, **_SMALL)
  np.testing.assert_array_equal(low.f_test, high.f_test)
  noise = low.y_test - low.f_test
  np.testing.assert_allclose(high.y_test - high.f_test, 3 * noise, atol=1e-12)
  assert not np.isin(noise, low.y_train - high.y_train).any()


@pytest.mark.parametrize('solver, error', [('dense', 1e-11),
                                           ('matrix_free', 1e-5)])
def test_dyadic_points_have_the_posterior_of_the_data(solver, error):
  for problem in _make_group(3, 4, (0.1, 1.), 1, solver=solver, **_SMALL):
    x = problem.x_dyadic[-10:]
    mean, covariance = references.gp_posterior(
        kernels.nngp(problem.kernel, problem.x_train),
        kernels.nngp(problem.kernel, x, problem.x_train),
        kernels.nngp(problem.kernel, x), problem.y_train[:, 0],
        problem.noise_std**2)
    np.testing.assert_allclose(problem.dyadic_mean[-1], mean, rtol=0,
                               atol=error)
    np.testing.assert_allclose(problem.dyadic_covariances[-1],
                               covariance + 1e-6 * np.eye(10), rtol=0,
                               atol=error)


def test_dyadic_points_lie_around_two_anchors_and_are_like_test_points():
  points = _make(
      problems.ProblemConfig(200, 0.1, 0.1, 0, **_SMALL)).x_dyadic
  assert scipy.stats.kstest(points[::5].ravel(), 'norm').pvalue > 1e-3
  cosines = np.corrcoef(points.reshape(30, 10, 200)[4])
  group = np.arange(10) // 5
  same = group[:, None] == group
  np.testing.assert_allclose(cosines[same & ~np.eye(10, dtype=bool)], 0.95**2,
                             atol=0.06)
  assert np.abs(cosines[~same]).max() < 0.35


def test_draws_are_what_they_were():
  """These numbers must not change: results are compared over months.

  Computed from the definition: Philox's bits for the folded key, their upper 52
  as a number in (0, 1), and the quantile of the normal there.
  """
  problem = _make(_small(seed=7))
  for constant, drawn in ((1, problem.x_train), (2, problem.x_test),
                          (3, problem.x_val)):
    key = jax.random.PRNGKey(7)
    for data in (constant, 3, 12):
      key = jax.random.fold_in(key, data)
    high, low = np.asarray(key).tolist()
    bits = np.random.Philox(key=2**32 * high + low).random_raw(drawn.size)
    uniforms = [((int(b) // 2**12) + 0.5) / 2**52 for b in bits]
    np.testing.assert_allclose(drawn.ravel(), scipy.stats.norm.ppf(uniforms),
                               rtol=1e-14)
  np.testing.assert_allclose(problem.x_train[0], _GOLDEN_X, rtol=1e-12)
  np.testing.assert_allclose(problem.y_train[:3, 0], _GOLDEN_Y, rtol=1e-9)
  # As they were before labels at x_test and dyadic points were drawn.
  np.testing.assert_allclose(problem.y_val[:3, 0], _GOLDEN_Y_VAL, rtol=1e-9)
  np.testing.assert_allclose(problem.test_mean[:3], _GOLDEN_MEAN, rtol=1e-9)


@pytest.fixture
def restore_jax_flags():
  names = ('jax_threefry_partitionable', 'jax_default_prng_impl',
           'jax_enable_x64')
  values = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in values.items():
    jax.config.update(name, value)


@pytest.mark.parametrize('flag, value', [
    ('jax_threefry_partitionable', False), ('jax_threefry_partitionable', True),
    ('jax_default_prng_impl', 'rbg')])
def test_jax_flags_change_nothing(restore_jax_flags, flag, value):
  problem = _make(_small())
  keys = problems.agent_key(3), problems.evaluation_key(3)
  jax.config.update(flag, value)
  _assert_same(problem, _make(_small()))
  np.testing.assert_array_equal(problems.agent_key(3), keys[0])
  np.testing.assert_array_equal(problems.evaluation_key(3), keys[1])


def test_keys_of_a_seed(restore_jax_flags):
  seeds = (0, 1, 2**32 - 1)
  keys = [make(seed) for seed in seeds
          for make in (problems.agent_key, problems.evaluation_key)]
  assert len({tuple(np.asarray(key).tolist()) for key in keys}) == len(keys)
  assert all(key.shape == (2,) and key.dtype == np.uint32 for key in keys)
  jax.config.update('jax_enable_x64', False)
  for seed, key in zip(seeds, keys[::2], strict=True):
    np.testing.assert_array_equal(problems.agent_key(seed), key)


def test_grouping_changes_nothing():
  configs = [_small(noise_std, seed=seed, reference=reference)
             for seed in (0, 1) for reference in ('bayes', 'enn2021')
             for noise_std in _NOISE_STDS]
  shuffled = [configs[i] for i in np.random.default_rng(0).permutation(12)]
  shuffled.append(shuffled[0])  # Asked for twice.
  together = problems.make_problems(shuffled)
  for config, problem in zip(shuffled, together, strict=True):
    assert problem.config == config
    _assert_same(problem, _make(config))


def test_more_test_points_change_no_other():
  few, many = (_make(_small(num_test=n)) for n in (4, 9))
  np.testing.assert_array_equal(few.x_test, many.x_test[:4])
  for name in ('x_train', 'y_train', 'x_val'):
    np.testing.assert_array_equal(getattr(few, name), getattr(many, name))
  np.testing.assert_allclose(few.test_mean, many.test_mean[:4], rtol=1e-12)


# Names.


def test_problem_ids():
  config = problems.ProblemConfig(10, 1, 0.01, 0)
  assert config.problem_id == 'D10_l1_e0.01_s0_bayes'
  assert problems.ProblemConfig(
      100, 0.5, 1., 12, 'enn2021').problem_id == 'D100_l0.5_e1_s12_enn2021'
  # Equal settings, equal name; any other setting, another name.
  assert problems.ProblemConfig(10, 1., 0.01, 0).problem_id == config.problem_id
  others = [dict(kernel=kernels.KernelConfig(num_hidden_layers=3)),
            dict(kernel=kernels.KernelConfig(activation='erf')),
            dict(num_test=10), dict(num_val=10), dict(noise_std=0.01 + 1e-9)]
  ids = {dataclasses.replace(config, **other).problem_id for other in others}
  assert len(ids | {config.problem_id}) == 6


@pytest.mark.parametrize('input_dim, data_ratio, num_train', [
    (10, 1, 10), (100, 0.29, 29), (10, 0.35, 3), (1000, 100, 100_000)])
def test_num_train(input_dim, data_ratio, num_train):
  config = problems.ProblemConfig(input_dim, data_ratio, 0.1, 0)
  assert config.num_train == num_train


# Cache.


def _count_factorisations(monkeypatch) -> list[int]:
  """A list that gets the size of every matrix that is factorised."""
  sizes = []
  cholesky = posterior.cholesky

  def counted(matrix, *args, **kwargs):
    sizes.append(len(matrix))
    return cholesky(matrix, *args, **kwargs)

  monkeypatch.setattr(posterior, 'cholesky', counted)
  return sizes


def test_cache_saves_all_factorisations(tmp_path, monkeypatch):
  fresh = _make_group(3, 4, _NOISE_STDS, 0, **_SMALL)
  sizes = _count_factorisations(monkeypatch)
  cache_dir = tmp_path / 'deep' / 'cache'

  def make(noise_stds, reference='bayes'):
    sizes.clear()
    made = _make_group(3, 4, noise_stds, 0, reference,
                                       cache_dir, **_SMALL)
    return made, len(sizes)

  made, count = make((0.1,))
  assert count == 4  # f at x_train, x_val and x_test, and one noise level.
  _assert_same(made[0], fresh[1])
  made, count = make(_NOISE_STDS)
  assert count == 2  # The other two.
  for a, b in zip(made, fresh, strict=True):
    _assert_same(a, b)
  made, count = make(_NOISE_STDS[::-1])
  assert count == 0
  for a, b in zip(made, fresh[::-1], strict=True):
    _assert_same(a, b)
    assert not a.test_mean.flags.writeable
  assert make((0.1,), 'enn2021')[1] == 1  # f is the same.
  # No kernel matrix either, and no temporary file left.
  monkeypatch.setattr(kernels, 'nngp', None)
  assert make(_NOISE_STDS)[1] == 0
  assert {path.suffix for path in cache_dir.iterdir()} == {'.cache'}


def test_cache_tells_problems_apart(tmp_path):
  configs = [_small(), _small(0.2), _small(seed=1), _small(num_test=6),
             _small(num_val=6), _small(input_dim=4, data_ratio=3),
             _small(data_ratio=4.25), _small(reference='enn2021'),
             _small(kernel=kernels.KernelConfig(activation='erf'))]
  for _ in range(2):
    for config in configs:
      _assert_same(_make(config, tmp_path),
                   _make(config))


def _flip(content: bytes, position: int) -> bytes:
  changed = bytearray(content)
  changed[position] ^= 1
  return bytes(changed)


def _with_header(content: bytes, **fields) -> bytes:
  magic, header, payload = content.split(b'\n', 2)
  header = json.dumps({**json.loads(header), **fields}).encode()
  return b'\n'.join([magic, header, payload])


def _another_version(content: bytes) -> bytes:
  identity = json.loads(content.split(b'\n', 2)[1])['identity']
  other = identity.replace(
      f'"format_version":{cache_entries.FORMAT_VERSION}',
      '"format_version":999')
  assert other != identity
  return _with_header(content, identity=other)


_DAMAGES = {
    'empty': lambda content: b'',
    'foreign': lambda content: b'not a cache file\n' * 100,
    'zeros': lambda content: bytes(len(content)),
    'header only': lambda content: b'\n'.join(content.split(b'\n', 2)[:2]),
    'truncated header': lambda content: content[:60],
    'header is a list': lambda content: content.split(b'\n')[0] + b'\n[]\n',
    'truncated': lambda content: content[:-1],
    'half': lambda content: content[:len(content) // 2],
    'longer': lambda content: content + b'\0',
    'first bit': lambda content: _flip(content, 0),
    'bit in an array': lambda content: _flip(content, -400),
    'last bit': lambda content: _flip(content, -1),
    'other version': _another_version,
    'other draws': lambda content: _with_header(content,
                                                info={'inputs': '0' * 64}),
    'other checksum': lambda content: _with_header(content, sha256='0' * 64),
}


@pytest.mark.parametrize('damage', _DAMAGES)
@pytest.mark.parametrize('kind', ['function', 'e0.1'])
def test_cache_makes_damaged_files_again(tmp_path, caplog, kind, damage):
  fresh = _make(_small(), tmp_path)
  path, = (path for path in tmp_path.iterdir() if kind in path.name)
  content = path.read_bytes()
  path.write_bytes(_DAMAGES[damage](content))
  assert path.read_bytes() != content
  _assert_same(_make(_small(), tmp_path), fresh)
  warning, = caplog.records
  assert str(path) in warning.getMessage()
  assert '\n' not in warning.getMessage()
  # It is whole again, and used.
  caplog.clear()
  if kind == 'function':  # The other one tells how long it took.
    assert path.read_bytes() == content
  _assert_same(_make(_small(), tmp_path), fresh)
  assert not caplog.records


def test_cache_takes_no_file_of_another_problem(tmp_path, caplog):
  """A file renamed to where another one should be."""
  _make(_small(seed=1), tmp_path)
  other, = tmp_path.glob('*e0.1_s1*')
  _make(_small(seed=0), tmp_path)
  path, = tmp_path.glob('*e0.1_s0*')
  path.write_bytes(other.read_bytes())
  _assert_same(_make(_small(seed=0), tmp_path),
               _make(_small(seed=0)))
  assert 'another problem' in caplog.text


def test_cache_with_another_function_makes_the_posterior_again(
    tmp_path, caplog, monkeypatch):
  """Posteriors belong to their f, not only to their seed."""
  _make(_small(), tmp_path)
  path, = tmp_path.glob('*function*')
  path.unlink()
  sample_prior = posterior.sample_prior
  monkeypatch.setattr(
      posterior, 'sample_prior', lambda *args, **kwargs: tuple(
          2 * f for f in sample_prior(*args, **kwargs)))
  cached = _make(_small(), tmp_path)
  _assert_same(cached, _make(_small()))
  assert 'other draws' in caplog.text


def test_cache_takes_many_writers_at_once(tmp_path, caplog):
  fresh = _make_group(3, 4, _NOISE_STDS, 0, **_SMALL)

  def work(i):
    made = []
    for _ in range(10):
      made.append(_make_group(3, 4, _NOISE_STDS, 0,
                                              cache_dir=tmp_path, **_SMALL))
      if i % 2:  # As if no one had written yet.
        for path in tmp_path.glob('*.cache'):
          path.unlink(missing_ok=True)
    return made

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for groups in pool.map(work, range(8)):
      for group in groups:
        for a, b in zip(group, fresh, strict=True):
          _assert_same(a, b)
  # On a busy machine somebody waits so long that it is said.
  assert not [record for record in caplog.records
              if ' until process ' not in record.getMessage()]
  assert not list(tmp_path.glob('*.tmp'))


def _unwritable_folders(tmp_path: pathlib.Path) -> list[pathlib.Path]:
  file = tmp_path / 'file'
  file.write_text('')
  locked = tmp_path / 'locked'
  locked.mkdir(mode=0o500)
  folders = [file, file / 'below']
  if os.geteuid() != 0:  # Nothing is locked to root.
    folders += [locked, locked / 'below']
  return folders


def test_refuses_a_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
  sizes = _count_factorisations(monkeypatch)
  for folder in _unwritable_folders(tmp_path):
    with pytest.raises(ValueError, match='cache_dir') as error:
      _make(_small(), folder)
    assert str(folder) in str(error.value)
    assert '\n' not in str(error.value)
  assert not sizes


# Brought data.


def _brought(**changes):
  rng = np.random.default_rng(0)
  return {**dict(x_train=rng.standard_normal((6, 2)),
                 y_train=rng.standard_normal(6),
                 x_test=rng.standard_normal((4, 2)),
                 x_val=rng.standard_normal((3, 2)), noise_std=0.1), **changes}


def test_brought_data_needs_no_labels_at_x_val():
  assert problems.problem_from_data(**_brought()).y_val is None


def test_brought_data_has_its_posterior():
  made = _make(_small(0.3, reference='enn2021'))
  brought = problems.problem_from_data(
      made.x_train, made.y_train, made.x_test, made.x_val, 0.3, 'enn2021',
      y_val=made.y_val)
  assert brought.config is None
  _assert_same(made, brought, _BROUGHT_ARRAYS)
  assert {getattr(brought, name) is None for name in _ARRAYS
          if name not in _BROUGHT_ARRAYS} == {True}
  assert brought.prior == made.prior
  flat = problems.problem_from_data(
      made.x_train, made.y_train[:, 0], made.x_test, made.x_val, 0.3, 'enn2021',
      y_val=made.y_val[:, 0])
  _assert_same(brought, flat)
  assert flat.problem_id == brought.problem_id
  assert flat.problem_id.startswith('data_')


def test_brought_data_is_converted_and_copied():
  x = np.arange(6).reshape(3, 2)
  given = _brought(x_train=x.tolist(), y_train=np.float32([1, 2, 4]),
                   x_test=x + 1, x_val=x.astype(np.float32), y_val=[1, 2, 3])
  problem = problems.problem_from_data(**given)
  for name in _BROUGHT_ARRAYS:
    assert getattr(problem, name).dtype == np.float64
  given['x_test'][:] = 0  # Its owner's array is neither locked nor shared.
  np.testing.assert_array_equal(problem.x_test, x + 1)
  assert problem.problem_id != problems.problem_from_data(**given).problem_id


@pytest.mark.parametrize('changes, message', [
    (dict(x_train=np.zeros(6)), r'x_train must have shape .* got \[6\]'),
    (dict(x_train=np.zeros((0, 2))), r'x_train must have .* got \[0, 2\]'),
    (dict(x_train=np.zeros((6, 0))), r'x_train must have .* got \[6, 0\]'),
    (dict(x_train=np.zeros((5, 2))), r'y_train must have .*\[5\].* got \[6\]'),
    (dict(y_train=np.zeros((6, 2))), r'y_train must have .* got \[6, 2\]'),
    (dict(x_test=np.zeros((4, 3))), r'x_test .* D = 2, as .* got \[4, 3\]'),
    (dict(x_val=np.zeros((3, 1))), r'x_val .* D = 2, as .* got \[3, 1\]'),
    (dict(x_val=np.zeros((0, 2))), r'x_val must have .* got \[0, 2\]'),
    (dict(x_train=np.full((6, 2), np.nan)), 'x_train must be finite, got 12 '),
    (dict(y_train=np.full(6, np.inf)), 'y_train must be finite, got 6 '),
    (dict(x_test=np.full((4, 2), np.nan)), 'x_test must be finite'),
    (dict(x_val=np.full((3, 2), -np.inf)), 'x_val must be finite'),
    (dict(y_val=np.zeros(4)), r'y_val must have .*\[3, 1\] like x_val, got'),
    (dict(y_val=[1, 2, np.nan]), 'y_val must be finite, got 1 '),
    (dict(y_train=['a'] * 6), 'y_train must be an array of real numbers'),
    (dict(y_train=np.ones(6) * 1j), 'y_train must be .* complex128'),
    (dict(x_test=[[1, 2], [3]]), 'x_test must be an array of real numbers'),
    (dict(noise_std=0), 'noise_std must be a finite number > 0, got 0'),
    (dict(noise_std=np.nan), 'noise_std must be .* got nan'),
    (dict(reference='true'), "reference must be .* got 'true'"),
    (dict(memory_budget_mb=1e-6), 'solver_memory_mb must be enough for .* 6 '
     'points of 2 .* got 1e-06: dense needs .* matrix_free needs'),
    (dict(solver='dense', memory_budget_mb=1e-6),
     'got 1e-06: dense needs 0 MB'),
    (dict(memory_budget_mb=0), 'solver_memory_mb must be .* > 0, got 0'),
    (dict(solver='sparse'), "solver must be one of .* got 'sparse'"),
])
def test_refuses_bad_data(changes, message):
  with pytest.raises(ValueError, match=message) as error:
    problems.problem_from_data(**_brought(**changes))
  assert '\n' not in str(error.value)


# Bad settings.


@pytest.mark.parametrize('field, value, message', [
    ('input_dim', 0, 'input_dim must be an integer >= 1, got 0'),
    ('input_dim', 2.5, 'input_dim must be .* got 2.5'),
    ('input_dim', True, 'input_dim must be .* got True'),
    ('data_ratio', 0, 'data_ratio must be a finite number > 0, got 0'),
    ('data_ratio', 0.3, r'at least one training point, got 3 \* 0.3'),
    ('data_ratio', 1e308, r'input_dim \* data_ratio must be a finite number'),
    ('data_ratio', 'many', "data_ratio must be .* got 'many'"),
    ('noise_std', 0., 'noise_std must be a finite number > 0, got 0'),
    ('noise_std', -1, 'noise_std must be .* got -1'),
    ('noise_std', np.inf, 'noise_std must be .* got inf'),
    ('seed', -1, 'seed must be an integer >= 0, got -1'),
    ('seed', 0.5, 'seed must be .* got 0.5'),
    ('seed', None, 'seed must be .* got None'),
    ('seed', 2**32, 'seed must be at most .* got 4294967296'),
    ('reference', 'enn', "reference must be .* 'enn2021'; got 'enn'"),
    ('kernel', 'relu', "kernel must be a KernelConfig, got 'relu'"),
    ('num_test', 0, 'num_test must be an integer >= 1, got 0'),
    ('num_val', 0, 'num_val must be an integer >= 1, got 0')])
def test_refuses_bad_settings(field, value, message):
  with pytest.raises(ValueError, match=message):
    _small(**{field: value})


def test_nothing_asked_for_is_nothing_made():
  assert problems.make_problems([]) == []


def test_refuses_what_is_too_large_before_any_work(tmp_path, monkeypatch):
  monkeypatch.setattr(np.random, 'Philox', None)
  large = problems.ProblemConfig(1000, 100, 0.1, 0)
  cache_dir = tmp_path / 'cache'
  for solver, message in (('dense', 'dense needs 163,200 MB'),
                          ('auto', 'dense needs .*, matrix_free needs')):
    with pytest.raises(ValueError, match=f'= 100000 points.* 500: {message}'):
      problems.make_problems([_small(), large], cache_dir, solver, 500.)
  assert not cache_dir.exists()


def test_the_solver_is_chosen_by_size_and_budget():
  large = problems.ProblemConfig(1000, 100, 0.1, 0)
  assert problems.choose_solver(large) == 'matrix_free'
  for input_dim in (10, 100, 1000):
    config = problems.ProblemConfig(input_dim, 10_000 // input_dim, 0.1, 0)
    assert problems.choose_solver(config) == 'dense'
    assert problems.choose_solver(config, 'matrix_free') == 'matrix_free'
  assert problems.choose_solver(large, 'dense', 2e5) == 'dense'


def test_what_is_not_in_the_cache_is_not_read(tmp_path):
  configs = [_small(0.1), _small(0.2), _small(0.1, seed=1)]
  read = lambda: problems.make_problems(configs, tmp_path, only_cached=True)
  assert read() == [None] * 3
  made = _make(configs[1], tmp_path)
  found = read()
  assert found[0] is found[2] is None
  _assert_same(found[1], made)
  assert found[1].ground_truth == made.ground_truth
  with pytest.raises(ValueError, match='cache_dir must be given where only_c'):
    problems.make_problems(configs, only_cached=True)


def test_processes_that_want_the_same_do_it_once(tmp_path, monkeypatch):
  sizes = _count_factorisations(monkeypatch)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    made = list(pool.map(
        lambda _: _make(_small(), tmp_path), range(8)))
  assert len(sizes) == 4  # f three times, and one noise level.
  for problem in made:
    _assert_same(problem, made[0])
  assert {path.suffix for path in tmp_path.iterdir()} == {'.cache'}


def test_the_lock_of_a_killed_process_does_not_stay(tmp_path, monkeypatch):
  claimed, claim = [], file_locks.claim
  monkeypatch.setattr(file_locks, 'claim',
                      lambda path: claimed.append(path) or claim(path))
  _make(_small(), tmp_path)
  lock, = claimed
  lock.touch()  # As after SIGKILL.
  _make(_small(), tmp_path)
  assert claimed == [lock] and not lock.exists()


def test_refuses_float32(restore_jax_flags):
  jax.config.update('jax_enable_x64', False)
  with pytest.raises(ValueError, match='jax_enable_x64 must be True'):
    _make(_small())
  with pytest.raises(ValueError, match='jax_enable_x64 must be True'):
    problems.problem_from_data(**_brought())


# The matrix-free solver.


def test_matrix_free_problems_have_the_dense_posterior(tmp_path):
  """Its own f, and the exact posterior of what that made."""
  said = []
  settings = dict(solver='matrix_free', num_test=20, num_val=15)
  made = _make_group(
      5, 12, _NOISE_STDS, 0, cache_dir=tmp_path, progress=said.append,
      **settings)
  assert len(said) >= 3 and all('\n' not in line for line in said)
  dense = _make_group(5, 12, _NOISE_STDS, 0, num_test=20,
                                      num_val=15)
  for problem, other in zip(made, dense, strict=True):
    assert problem.ground_truth.solver == 'matrix_free'
    assert problem.problem_id == f'{other.problem_id}_matrix_free'
    np.testing.assert_array_equal(problem.x_train, other.x_train)
    truth = problems.problem_from_data(
        problem.x_train, problem.y_train, problem.x_test, problem.x_val,
        problem.noise_std)
    truth_is = problem.ground_truth
    for points in ('test', 'val'):
      std = getattr(truth, f'{points}_std')
      off = np.abs(getattr(problem, f'{points}_mean')
                   - getattr(truth, f'{points}_mean')) / std
      assert off.max() <= truth_is.mean_error + 1e-12 < 1e-3
      off = np.abs(getattr(problem, f'{points}_std') / std - 1.)
      assert off.max() <= truth_is.std_error + 1e-12 < 1e-4
    scale = truth.test_std.max() ** 2
    np.testing.assert_allclose(problem.test_covariances,
                               truth.test_covariances, atol=1e-4 * scale)
  # f is another one, the noise is not.
  assert np.abs(made[0].y_train - dense[0].y_train).max() > 0.1
  np.testing.assert_allclose(made[2].y_train - made[1].y_train,
                             dense[2].y_train - dense[1].y_train)
  # From the cache, and from it with a noise level that is new.
  again = _make_group(5, 12, (0.1, 0.5), 0, cache_dir=tmp_path,
                                      **settings)
  _assert_same(again[0], made[1])
  assert again[1].noise_std == 0.5
  assert {path.suffix for path in tmp_path.iterdir()} == {'.cache'}


def test_matrix_free_labels_are_of_the_function():
  scaled = {'val': [], 'test': []}
  for seed in range(12):
    problem = _make(
        problems.ProblemConfig(4, 6, 0.1, seed, num_test=30, num_val=40),
        solver='matrix_free')
    for points, values in scaled.items():
      std = getattr(problem, f'{points}_std')
      values.append((getattr(problem, f'y_{points}')[:, 0]
                     - getattr(problem, f'{points}_mean'))
                    / np.sqrt(std**2 + 0.01))
  for values in scaled.values():
    assert 0.7 < np.std(np.concatenate(values)) < 1.3


def test_a_killed_matrix_free_problem_goes_on(tmp_path):
  settings = dict(solver='matrix_free', cache_dir=tmp_path, num_test=20,
                  num_val=15)
  fresh = _make_group(6, 20, (0.1,), 0, **{
      **settings, 'cache_dir': None})[0]
  said = []

  def killed(line):
    said.append(line)
    if len(said) == 3:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    _make_group(6, 20, (0.1,), 0, progress=killed, **settings)
  assert [path for path in tmp_path.iterdir() if path.suffix == '.steps']
  rest = []
  made, = _make_group(6, 20, (0.1,), 0, progress=rest.append,
                                      **settings)
  _assert_same(made, fresh)
  assert not set(said) & set(rest)
  assert {path.suffix for path in tmp_path.iterdir()} == {'.cache'}


def _kill_when_second_step_is_said():
  said = []

  def killed(line):
    said.append(line)
    if len(said) == 2:
      raise KeyboardInterrupt

  return killed


@pytest.mark.parametrize('changes', [
    dict(noise_stds=(0.2, 0.1)), dict(reference='enn2021'),
    dict(kernel=kernels.KernelConfig(activation='erf')), dict(num_val=16)])
def test_what_was_killed_is_in_nobody_elses_way(tmp_path, changes):
  settings = dict(noise_stds=(0.1,), solver='matrix_free', cache_dir=tmp_path,
                  num_test=20, num_val=15)
  with pytest.raises(KeyboardInterrupt):
    _make_group(6, 20, seed=0, **settings,
                                progress=_kill_when_second_step_is_said())
  left = {path for path in tmp_path.iterdir() if path.suffix == '.steps'}
  made = _make_group(6, 20, seed=0, **{**settings, **changes})
  fresh = _make_group(
      6, 20, seed=0, **{**settings, **changes, 'cache_dir': None})
  for problem, other in zip(made, fresh, strict=True):
    _assert_same(problem, other)
  # The same f with other noise levels makes the first of no use.
  same_function = not {'kernel', 'num_val'} & set(changes)
  assert left and all(path.exists() != same_function for path in left)
  # And it is still made.
  _make_group(6, 20, seed=0, **settings)
  assert not [path for path in tmp_path.iterdir() if path.suffix != '.cache']
