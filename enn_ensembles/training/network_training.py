"""What the training program must know of an agent: network, loss, optimizer."""

from collections.abc import Callable
import dataclasses

import chex
import optax

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.training import early_stopping as early_stopping_lib
from enn_ensembles.training import losses
from enn_ensembles.training import optimizers

Optimizer = optax.GradientTransformation


@dataclasses.dataclass(frozen=True)
class NetworkTraining:
  """What is trained, and how: the fields of an agent with a network.

  `network_agent.NetworkAgent`, which everybody makes, explains them. They stand
  here because that class calls the training program, which reads them.
  """
  make_network: Callable[[base.PriorKnowledge], base.EpistemicNetwork]
  make_loss: Callable[[base.PriorKnowledge], losses.Loss]
  optimizer: Optimizer | Callable[[base.PriorKnowledge], Optimizer] = (
      optax.adam(1e-3))
  num_batches: int = 1000
  batch_size: int = 100
  sampling: str = 'replacement'
  augment: Callable[[chex.PRNGKey, base.Array], base.Array] | None = None
  early_stopping: early_stopping_lib.EarlyStopping | None = None
  snapshots: tuple[int, ...] = ()

  def __post_init__(self):
    for name in ('make_network', 'make_loss', 'augment'):
      value = getattr(self, name)
      if value is not None and not callable(value):
        raise ValueError(f'{name} must be a function, got '
                         f'{checks.shown(value)}.')
    if not isinstance(self.early_stopping,
                      (early_stopping_lib.EarlyStopping, type(None))):
      raise ValueError('early_stopping must be an EarlyStopping or None, got '
                       f'{checks.shown(self.early_stopping)}.')
    checks.check_count('num_batches', self.num_batches)
    checks.check_count('batch_size', self.batch_size)
    checks.check_choice('sampling', self.sampling, optimizers.SAMPLINGS)
    if not (isinstance(self.optimizer, optax.GradientTransformation)
            or callable(self.optimizer)):
      raise ValueError('optimizer must be an optax GradientTransformation or a '
                       'function of PriorKnowledge, got '
                       f'{checks.shown(self.optimizer)}.')
    if (self.early_stopping is not None
        and self.early_stopping.every > self.num_batches):
      # Nothing would ever be scored, and the untrained network be the best.
      raise ValueError('validate_every must be at most num_batches '
                       f'{self.num_batches}, got {self.early_stopping.every}.')
    if not isinstance(self.snapshots, (tuple, list)):
      raise ValueError('snapshots must be a tuple of steps, got '
                       f'{self.snapshots!r}.')
    for step in self.snapshots:
      checks.check_count('every entry of snapshots', step, minimum=0)
    if list(self.snapshots) != sorted(set(self.snapshots)) or any(
        not 0 <= step <= self.num_batches for step in self.snapshots):
      raise ValueError(
          'snapshots must be increasing steps from 0 to num_batches '
          f'{self.num_batches}, got {self.snapshots!r}.')
    if self.snapshots and self.early_stopping is not None:
      raise ValueError('snapshots must be () with early_stopping, which may '
                       f'end before them, got {self.snapshots!r}.')

  def make_optimizer(self, prior: base.PriorKnowledge) -> Optimizer:
    """The optimizer of one problem."""
    if isinstance(self.optimizer, optax.GradientTransformation):
      return self.optimizer
    return self.optimizer(prior)
