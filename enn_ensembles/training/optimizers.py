"""Optimizers and learning-rate schedules from plain settings.

`TrainingConfig` has the settings that all trained agents share; their configs
inherit them. `make_optimizer` turns them into an optax transformation.
"""

import collections
import dataclasses
import functools

import optax

from enn_ensembles import checks
from enn_ensembles.training import early_stopping

OPTIMIZERS = ('adam', 'adamw', 'sgd')
SAMPLINGS = ('replacement', 'epochs')


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How a network is trained: the settings that all trained agents share.

  Attributes:
    learning_rate: of the optimizer, at the first step.
    num_batches: steps.
    batch_size: data points per step.
    sampling: how minibatches are made: 'replacement' draws every point
      independently, 'epochs' goes through the data in a new random order again
      and again, leaving out the points that do not fill a batch.
    optimizer: 'adam' (Kingma & Ba 2015, arXiv 1412.6980), 'adamw' (Loshchilov &
      Hutter 2019, arXiv 1711.05101) or 'sgd'.
    momentum: of 'sgd', in [0, 1).
    nesterov: whether the momentum of 'sgd' is Nesterov's.
    l2: coefficient of the decay that the optimizer applies to all parameters,
      biases and members alike: l2 * parameter is added to the gradient; 'adamw'
      instead takes learning_rate * l2 * parameter off the parameter.
    final_learning_rate: where half a cosine over num_batches takes the learning
      rate (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts); None
      is no cosine.
    decay_at: shares of num_batches, increasing and in (0, 1), at which the
      learning rate is multiplied by decay_factor; empty is never.
    decay_factor: see decay_at.
    patience: training stops after so many scores of the validation data in a
      row without improvement, and the best parameters are kept; 0 trains all
      steps and keeps the last. `early_stopping.EarlyStopping` explains this
      setting and the next three.
    validate_every: steps between two scores.
    min_delta: by how much a score must be lower than the best one to be an
      improvement.
    validate_by: the score, 'nll' or 'error'.
  """
  learning_rate: float = 1e-3
  num_batches: int = 1000
  batch_size: int = 100
  sampling: str = 'replacement'
  optimizer: str = 'adam'
  momentum: float = 0.9
  nesterov: bool = True
  l2: float = 0.
  final_learning_rate: float | None = None
  decay_at: tuple[float, ...] = ()
  decay_factor: float = 0.1
  patience: int = 0
  validate_every: int = 100
  min_delta: float = 0.
  validate_by: str = 'nll'

  def __post_init__(self):
    checks.check_positive('learning_rate', self.learning_rate)
    checks.check_count('num_batches', self.num_batches)
    checks.check_count('batch_size', self.batch_size)
    checks.check_choice('sampling', self.sampling, SAMPLINGS)
    checks.check_choice('optimizer', self.optimizer, OPTIMIZERS)
    checks.check_rate('momentum', self.momentum)
    checks.check_flag('nesterov', self.nesterov)
    checks.check_scale('l2', self.l2)
    checks.check_scale('decay_factor', self.decay_factor)
    checks.check_count('patience', self.patience, minimum=0)
    checks.check_count('validate_every', self.validate_every)
    checks.check_scale('min_delta', self.min_delta)
    checks.check_choice('validate_by', self.validate_by,
                        early_stopping.METRICS)
    if not isinstance(self.decay_at, tuple):
      raise ValueError('decay_at must be a tuple of increasing shares in (0, 1)'
                       f', got {self.decay_at!r}.')
    for share in self.decay_at:
      checks.check_positive('every entry of decay_at', share)
    if any(b <= a for a, b in zip(self.decay_at, (*self.decay_at[1:], 1.))):
      raise ValueError('decay_at must be increasing and below 1, got '
                       f'{self.decay_at!r}.')
    if self.patience and self.validate_every > self.num_batches:
      # Nothing would ever be scored, and the untrained network be the best.
      raise ValueError('validate_every must be at most num_batches '
                       f'{self.num_batches} where patience is given, got '
                       f'{self.validate_every}.')
    if self.final_learning_rate is not None:
      checks.check_scale('final_learning_rate', self.final_learning_rate)
      if self.final_learning_rate > self.learning_rate:
        raise ValueError(
            f'final_learning_rate must be at most learning_rate '
            f'{self.learning_rate!r}, got {self.final_learning_rate!r}.')
      if self.decay_at:
        raise ValueError('decay_at must be () where final_learning_rate is '
                         f'given, got {self.decay_at!r}.')


def make_early_stopping(config: TrainingConfig
                        ) -> early_stopping.EarlyStopping | None:
  """When training stops; None where it takes all its steps."""
  if not config.patience:
    return None
  return early_stopping.EarlyStopping(config.validate_every, config.patience,
                                      config.min_delta, config.validate_by)


def make_schedule(config: TrainingConfig) -> optax.ScalarOrSchedule:
  """The learning rate: a number, or a function of the step."""
  if config.final_learning_rate is not None:
    return optax.cosine_decay_schedule(
        config.learning_rate, config.num_batches,
        alpha=config.final_learning_rate / config.learning_rate)
  if config.decay_at:
    # Shares that round to one step each multiply the rate. No share rounds to
    # step 0, which has `learning_rate`.
    factors = collections.defaultdict(lambda: 1.)
    for share in config.decay_at:
      factors[max(1, round(share * config.num_batches))] *= config.decay_factor
    return optax.piecewise_constant_schedule(config.learning_rate, factors)
  return config.learning_rate


def at_learning_rate(config: TrainingConfig,
                     learning_rate: float) -> TrainingConfig:
  """The same training at another learning rate: its schedule is scaled."""
  final = config.final_learning_rate
  settings = {field.name: getattr(config, field.name)
              for field in dataclasses.fields(TrainingConfig)}
  return TrainingConfig(**{
      **settings, 'learning_rate': learning_rate, 'final_learning_rate':
          final and min(learning_rate,  # Which rounding may exceed.
                        final * (learning_rate / config.learning_rate))})


@functools.cache
def make_optimizer(config: TrainingConfig) -> optax.GradientTransformation:
  """The optimizer of a config; equal configs have the same."""
  schedule = make_schedule(config)
  if config.optimizer == 'adamw':
    return optax.adamw(schedule, weight_decay=config.l2)
  if config.optimizer == 'sgd':
    optimizer = optax.sgd(schedule, config.momentum or None, config.nesterov)
  else:
    optimizer = optax.adam(schedule)
  if not config.l2:
    return optimizer
  return optax.chain(optax.add_decayed_weights(config.l2), optimizer)
