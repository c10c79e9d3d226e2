"""The loss that a problem's likelihood asks for: agents need not know it.

`known_noise_std` and `known_kernel` are for what must be told of a problem.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.nngp import kernels
from enn_ensembles.training import classification
from enn_ensembles.training import losses
from enn_ensembles.training import penalties
from enn_ensembles.training import regression


def _is_gaussian(prior: base.PriorKnowledge) -> bool:
  """Whether outputs are means rather than logits.

  Raises:
    ValueError: the likelihood has no loss.
  """
  if isinstance(prior.likelihood, base.Gaussian):
    return True
  if isinstance(prior.likelihood, base.Categorical):
    return False
  raise ValueError('likelihood must be base.Gaussian or base.Categorical, got '
                   f'{prior.likelihood!r}.')


def point_error(prior: base.PriorKnowledge) -> losses.PointError:
  """The error of one prediction: squared, or the cross-entropy."""
  return (regression.squared_error if _is_gaussian(prior)
          else classification.cross_entropy)


def known_noise_std(prior: base.PriorKnowledge, needed_for: str) -> Any:
  """The one noise level of a Gaussian likelihood.

  Args:
    prior: what is known of the problem.
    needed_for: who needs it, in the error.

  Raises:
    ValueError: the noise is unknown, a function of x, or not Gaussian.
  """
  noise_std = getattr(prior.likelihood, 'noise_std', None)
  if noise_std is None or callable(noise_std):
    raise ValueError(f'{needed_for} needs a problem whose noise_std is a known '
                     f'number, got {noise_std!r}.')
  return noise_std


def as_arrays(likelihood: base.Likelihood) -> base.Likelihood:
  """A likelihood whose leaves a traced program can take.

  Noise that is a function of x is unknown there.
  """
  if callable(getattr(likelihood, 'noise_std', None)):
    return dataclasses.replace(likelihood, noise_std=None)
  return likelihood


def known_kernel(prior: base.PriorKnowledge,
                 needed_for: str) -> kernels.KernelConfig:
  """The kernel of the Gaussian process that f is a draw of.

  Args:
    prior: what is known of the problem.
    needed_for: who needs it, in the error.

  Raises:
    ValueError: the kernel is unknown, or there are several outputs, of which
      no kernel says how they belong together.
  """
  if prior.kernel is None:
    raise ValueError(f'{needed_for} needs a problem whose kernel is known, got '
                     'kernel None.')
  if isinstance(prior.likelihood, base.Gaussian) and prior.num_outputs != 1:
    raise ValueError(f'{needed_for} needs a problem with one output, got '
                     f'{prior.num_outputs}.')
  return prior.kernel


def make_loss_for(prior: base.PriorKnowledge, *, noise_scale: float = 0.,
                  num_index_samples: int | None = None,
                  bootstrap: bool = False, weight_decay: float = 0.,
                  mean_squares: penalties.MeanSquares | None = None,
                  shapes: Sequence[networks.LayerShape] | None = None,
                  decay_from_start: bool = False,
                  per_example: bool = False,
                  loss: losses.Loss | None = None) -> losses.Loss:
  """The mean error of a problem: squared error, or cross-entropy.

  Args:
    prior: what is known of the problem.
    noise_scale: std of the target noise (Lu & Van Roy 2017, arXiv 1705.07347),
      in units of the problem's noise_std. Class labels get none: their noise is
      not additive.
    num_index_samples: indices drawn per step; None takes all of a finite
      indexer, and has to be given for others.
    bootstrap: whether each index of a finite indexer has its own T of the T
      data points, drawn with replacement.
    weight_decay: strength of the Gaussian prior on the trained weights, that of
      the problem's kernel; 1 makes the minimum a posterior mode, 0 is none.
    mean_squares: params -> for every weight array, from the input on, the mean
      over members of the squares of its weights, [..., columns]. To be given,
      and only read, where weight_decay is not 0.
    shapes: `networks.LayerShape` of these arrays; None where all of them are
      layers whose last column is their bias. Only read there, too.
    decay_from_start: whether the prior is centred on the initial weights rather
      than on 0: anchored ensembles (Pearce et al. 2020, "Uncertainty in neural
      networks: approximately Bayesian ensembling", arXiv 1810.05546).
    per_example: whether each data point of a batch has an index of its own, as
      MC dropout trains; then noise_scale, num_index_samples and bootstrap are
      not read.
    loss: an agent's own mean error, which weight decay is added to; None makes
      it from the settings above.

  Returns:
    The loss of one problem: the mean over the data points of a batch and over
    indices of the squared error, summed over outputs, or of the cross-entropy
    in nats. Weight decay adds weight_decay / T times noise_std^2 (squared
    error) or 1/2 (cross-entropy) times the sum over layers of the mean squares,
    see `penalties.add_gaussian_weight_decay`.

  Raises:
    ValueError: the likelihood has no loss, a setting needs a noise level that
      is not known, or weight_decay needs mean_squares. Where indices are
      infinitely many, training raises it for bootstrap, and without
      num_index_samples.
  """
  checks.check_scale('noise_scale', noise_scale)
  checks.check_scale('weight_decay', weight_decay)
  if num_index_samples is not None:
    checks.check_count('num_index_samples', num_index_samples)
  gaussian = _is_gaussian(prior)
  module = regression if gaussian else classification
  if loss is not None:
    pass
  elif per_example:
    loss = module.make_per_example_loss()
  else:
    noise = {}
    if gaussian and noise_scale:
      noise = {'noise_std': noise_scale * known_noise_std(
          prior, 'noise_scale other than 0')}
    loss = module.make_loss(num_index_samples=num_index_samples,
                            bootstrap=bootstrap, **noise)
  if not weight_decay:
    return loss
  if mean_squares is None:
    raise ValueError('weight_decay must be 0 for a network that does not say '
                     f'what its weights are, got {weight_decay!r}.')
  scale = weight_decay / prior.num_train * (
      known_noise_std(prior, 'weight_decay') ** 2 if gaussian else 0.5)
  return penalties.add_gaussian_weight_decay(loss, scale, mean_squares, shapes,
                                             decay_from_start)


def make_elbo_loss_for(prior: base.PriorKnowledge,
                       divergence: Callable[[base.Params], base.Array],
                       num_index_samples: int) -> losses.Loss:
  """The negative ELBO per data point of a problem.

  Args:
    prior: what is known of the problem.
    divergence: params -> KL(q || prior) of the weights, in nats.
    num_index_samples: indices drawn per step.

  Raises:
    ValueError: the likelihood has no loss, or a noise level that is not known.
  """
  if _is_gaussian(prior):
    return regression.make_elbo_loss(
        known_noise_std(prior, 'an ELBO'), prior.num_train, divergence,
        num_index_samples)
  return classification.make_elbo_loss(prior.num_train, divergence,
                                       num_index_samples)
