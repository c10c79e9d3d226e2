"""Runs of one network from different initial weights, kept as array files.

Every run has a key of its own: its initial weights, the order of its
minibatches and its dropout are independent of the other runs'. A run is one
file, written when it is trained; a study that was killed goes on with the runs
that are missing, and another config or other data never reads it.
"""

from collections.abc import Callable
from concurrent import futures
import dataclasses
import functools
import itertools
import math
import pathlib

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.machine import array_files
from enn_ensembles.machine import canonical
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.networks import layers
from enn_ensembles.problems import draws
from enn_ensembles.problems import image_classification
from enn_ensembles.scoring import categorical
from enn_ensembles.training import forward_blocks
from enn_ensembles.training import likelihoods
from enn_ensembles.training import loop
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers

_FORMAT = 1  # Of the files; part of their identity.

# Images that a network forwards at once: so few that the activations of
# convolutions stay in a core's cache.
_IMAGE_BLOCK = 128


# 'mlp_dropout' drops units at a rate of its own, where `dropout` is a setting.
BODIES = tuple(name for name in networks.BODIES if name != 'mlp_dropout')


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
  """How every run is trained; the defaults are the study's.

  Attributes:
    body: a name in BODIES.
    hidden_sizes: units of each hidden layer of 'mlp'.
    norm: of residual networks: 'group' or 'none'. The running statistics of
      batch norms are no weights: neither a line nor a sample of weights has
      them.
    num_epochs: passes through the training set; a snapshot after each.
    batch_size: images per step.
    learning_rate: of Adam, halved after each quarter of the steps; at most 1,
      which is what a step moves every weight by.
    dropout: probability that a hidden unit is 0 in training.
    seed: of all runs.
  """
  body: str = 'mlp'
  hidden_sizes: tuple[int, ...] = (64, 64)
  norm: str = 'group'
  num_epochs: int = 40
  batch_size: int = 128
  learning_rate: float = 1.6e-3
  dropout: float = 0.1
  seed: int = 0

  def __post_init__(self):
    checks.check_choice('body', self.body, BODIES)
    checks.check_sizes('hidden_sizes', self.hidden_sizes)
    checks.check_choice('norm', self.norm, ('group', 'none'))
    checks.check_count('num_epochs', self.num_epochs)
    checks.check_count('batch_size', self.batch_size)
    checks.check_positive('learning_rate', self.learning_rate, 1.)
    checks.check_rate('dropout', self.dropout)
    checks.check_count('seed', self.seed, minimum=0)

  def make_body(self, prior: base.PriorKnowledge) -> networks.Body:
    """The network of one run; ValueError if it does not fit the images."""
    settings = {'mlp': {'hidden_sizes': self.hidden_sizes},
                'resnet20': {'norm': self.norm},
                'resnet18': {'norm': self.norm}}.get(self.body, {})
    return networks.make_body(self.body, prior.input_shape, prior.num_outputs,
                              **settings)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One run.

  Attributes:
    epochs: after which the snapshots are, increasing, int [S]; 0 is before
      training.
    weights: of the snapshots, float32 [S, M].
    logits: of the snapshots at the test images, float32 [S, N, C].
    train_seconds: wall time of its training, compilation apart.
  """
  epochs: np.ndarray
  weights: np.ndarray
  logits: np.ndarray
  train_seconds: float

  @functools.cached_property
  def log_probs(self) -> np.ndarray:
    """Log probabilities of the snapshots, float64 [S, N, C]."""
    return categorical.log_softmax(self.logits)

  @property
  def solution(self) -> np.ndarray:
    """The weights after the last epoch, float64 [M]."""
    return self.weights[-1].astype(np.float64)


class Forward:
  """Outputs of many networks of one body, whose weights are vectors [M].

  Attributes:
    kernel_entries: which entries of a vector multiply an input: no biases, no
      scales and offsets of norms; bool [M].
  """

  def __init__(self, body: networks.Body, input_shape: tuple[int, ...]):
    """Args: the body, and the shape of one image."""
    self._shapes = body.weight_shapes(input_shape)
    self._sizes = [shape.out * shape.columns for shape in self._shapes]
    kernels = []
    for shape in self._shapes:
      row = np.ones(shape.columns, bool)
      if shape.has_bias:
        row[-1] = False
      if shape.is_norm:
        row[:] = False
      kernels.append(np.tile(row, shape.out))
    self.kernel_entries = np.concatenate(kernels)

    def forward(vector, x):
      parts = jnp.split(vector, np.cumsum(self._sizes)[:-1])
      return networks.forward(
          body, [part.reshape(1, shape.out, shape.columns)
                 for part, shape in zip(parts, self._shapes)], x)[0]

    self._forward = jax.jit(lambda vector, x: forward_blocks.map_points(
        lambda x: forward(vector, x), x, _IMAGE_BLOCK))

  def vector(self, params: base.Params) -> np.ndarray:
    """Parameters of one network, [..., 1, out, columns] each -> [..., M]."""
    arrays = [np.asarray(w) for w in networks.get_weights(params)]
    return np.concatenate(
        [a.reshape(*a.shape[:-3], -1) for a in arrays], axis=-1)

  def logits(self, vectors: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Logits float32 [J, N, C] of networks [J, M] at images [N, ...]."""
    x = jnp.asarray(x, jnp.float32)
    # A network keeps one core busy.
    with futures.ThreadPoolExecutor(len(devices.available_cores())) as pool:
      return np.stack(list(pool.map(
          lambda vector: np.asarray(self._forward(vector, x)),
          np.asarray(vectors, np.float32))))

  def log_probs(self, vectors: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Log probabilities float64 [J, N, C]."""
    return categorical.log_softmax(self.logits(vectors, x))


def _make_network(body: networks.Body, dropout: float
                  ) -> base.EpistemicNetwork:
  """A network of one member that drops hidden units in training."""
  body = networks.without_input_dropout(body)
  network = networks.make_member_network(body, 1)
  if not dropout:
    return network

  def apply_train(params, state, x, indices, key):
    del indices  # There is one.
    place = itertools.count()

    def drop(h, shape):
      del shape
      kept = jax.random.bernoulli(jax.random.fold_in(key, next(place)),
                                  1. - dropout, h.shape)
      return jnp.where(kept, h / (1. - dropout), 0.).astype(h.dtype)

    return networks.forward(body, networks.get_weights(params), x,
                            layers.ForwardPass(drop=drop)), state

  return dataclasses.replace(network, apply_train=apply_train)


def make_agent(settings: TrainingSettings, prior: base.PriorKnowledge
               ) -> network_agent.NetworkAgent:
  """The agent of one run, with a snapshot after every epoch."""
  batch_size = min(settings.batch_size, prior.num_train)
  per_epoch = prior.num_train // batch_size
  num_steps = per_epoch * settings.num_epochs
  training = optimizers.TrainingConfig(
      learning_rate=settings.learning_rate, num_batches=num_steps,
      batch_size=batch_size, sampling='epochs', decay_at=(0.25, 0.5, 0.75),
      decay_factor=0.5)
  body = settings.make_body(prior)
  return network_agent.NetworkAgent(
      lambda prior: _make_network(body, settings.dropout),
      likelihoods.make_loss_for, optimizers.make_optimizer(training),
      num_batches=num_steps, batch_size=batch_size, sampling='epochs',
      snapshots=tuple(range(0, num_steps + 1, per_epoch)))


def _train_run(settings: TrainingSettings,
               problem: image_classification.ImageClassificationProblem,
               forward: Forward, number: int, num_kept: int | None) -> Run:
  data = problem.data
  agent = make_agent(settings, problem.prior).for_problem(problem)
  key = jax.random.fold_in(draws.agent_key(settings.seed), number)
  trained = loop.train(
      agent, data.x[None], data.y[None, None],
      base.Categorical(problem.prior.num_outputs), key[None])
  steps = sorted(trained.snapshots)
  epochs = np.arange(len(steps))
  if num_kept is not None:
    steps, epochs = steps[-num_kept:], epochs[-num_kept:]
  weights = np.stack([forward.vector(trained.snapshots[step])[0, 0]
                      for step in steps]).astype(np.float32)
  return Run(epochs, weights, forward.logits(weights, problem.x_test),
             trained.train_seconds)


def get_runs(settings: TrainingSettings,
             problem: image_classification.ImageClassificationProblem,
             forward: Forward, num_runs: int, num_whole: int, num_last: int,
             folder: pathlib.Path,
             say: Callable[[str], None] = logging.info) -> list[Run]:
  """The runs: read where they are there, trained and written where not.

  Args:
    settings: of their training.
    problem: what is learnt.
    forward: of the settings' body.
    num_runs: how many.
    num_whole: so many of them, the first, keep all snapshots; the others the
      last ones.
    num_last: how many these are.
    folder: where the files are.
    say: is told of each run.

  Raises:
    FileError: a file cannot be written.
  """
  found = []
  for number in range(num_runs):
    num_kept = None if number < num_whole else num_last
    fields = canonical.named_fields(settings)
    if settings.body != 'mlp':
      del fields['hidden_sizes']
    if not settings.body.startswith('resnet'):
      del fields['norm']
    identity = canonical.canonical_json({
        'format': _FORMAT, 'problem': problem.problem_id, 'training': fields,
        'run': number, 'num_kept': num_kept})
    path = folder / f'run_{number}_{canonical.config_hash(identity)}.arrays'
    run = _read(path, identity)
    if run is None:
      run = _train_run(settings, problem, forward, number, num_kept)
      array_files.write(
          path, identity,
          {'epochs': run.epochs, 'weights': run.weights, 'logits': run.logits},
          {'train_seconds': run.train_seconds})
      say(f'run {number} trained in {run.train_seconds:.1f} s: {path.name}')
    else:
      say(f'run {number} read: {path.name}')
    if not np.isfinite(run.weights).all():
      raise ValueError(f'learning_rate {settings.learning_rate:g} makes run '
                       f'{number} diverge: its weights are not finite.')
    found.append(run)
  return found


def _read(path: pathlib.Path, identity: str) -> Run | None:
  if not files.is_file(path):
    return None
  try:
    contents = array_files.read(path, identity)
  except array_files.StaleError as error:
    logging.warning('%s is made anew: %s.', path, error)
    return None
  return Run(contents.arrays['epochs'], contents.arrays['weights'],
             contents.arrays['logits'], contents.info['train_seconds'])


def spread_rows(num: int, most: int) -> np.ndarray:
  """Rows of at most `most` of num points, evenly spread, int [min]."""
  return np.arange(num)[::max(1, math.ceil(num / most))]
