"""The one table of all scores: what each means, its unit, what is better.

A problem gives the scores of its score set (`base.Problem.score_set`). Rows,
tables, comparisons, pictures and selections take a score by its name and read
here what it is: a new score is a function that computes it and one entry here.
Nothing here imports jax, since reports are made without it.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Score(NamedTuple):
  """What a score is.

  Attributes:
    score_sets: the score sets that it belongs to.
    direction: 'lower' or 'higher' is better, or 'none' for what describes.
    unit: 'nats', 'share', 's', or '1' for a pure number.
    label: a short name for headers and axes.
    meaning: a sentence for readers who do not know it.
    required: whether every scored row of its score sets has it.
    floor: the score that says what a perfect agent scores with as many samples.
    may_be_infinite: whether a row may hold inf there and still be 'ok'.
    positive: whether it is never negative, so that ratios and logarithms of it
      make sense.
    inverted_points: the points of a block whose sample covariance it inverts;
      0 where it inverts none.
  """
  score_sets: tuple[str, ...]
  direction: str
  unit: str
  label: str
  meaning: str
  required: bool = False
  floor: str | None = None
  may_be_infinite: bool = False
  positive: bool = True
  inverted_points: int = 0


class ScoreSet(NamedTuple):
  """The scores of one kind of problem.

  Attributes:
    headline: the score that a board ranks by unless it is told otherwise.
    meaning: a sentence.
    beside: other scores whose means a board in a terminal shows as well.
  """
  headline: str
  meaning: str
  beside: tuple[str, ...] = ()


SCORE_SETS: Mapping[str, ScoreSet] = {
    'nngp': ScoreSet(
        'kl_estimate', 'Regression on data of an infinitely wide network, '
        'against the exact posterior of its function.'),
    'classification': ScoreSet(
        'nll', 'Classification of real data, against held-out labels.',
        ('accuracy', 'ece', 'shift_nll', 'ood_auroc_msp', 'ood_auroc_mi')),
}

_NNGP = ('nngp',)
_CLASSES = ('classification',)



def _on_shifted_sets() -> dict[str, Score]:
  """Scores of classification problems, averaged over shifted test sets."""
  names = {
      'accuracy': ('higher', 'share', 'accuracy'),
      'nll': ('lower', 'nats', 'NLL'),
      'brier': ('lower', '1', 'Brier'),
      'ece': ('lower', 'share', 'ECE'),
      'adaptive_ece': ('lower', 'share', 'adaptive ECE'),
      'total_uncertainty': ('none', 'nats', 'total uncertainty'),
      'aleatoric_uncertainty': ('none', 'nats', 'aleatoric uncertainty'),
      'epistemic_uncertainty': ('none', 'nats', 'epistemic uncertainty (MI)'),
      'disagreement': ('none', 'share', 'disagreement'),
  }
  return {
      f'shift_{name}': Score(
          _CLASSES, direction, unit, f'{label} under shift',
          f'{name.replace("_", " ")}, mean over shifted test sets')
      for name, (direction, unit, label) in names.items()}


def _split_of_variance() -> dict[str, Score]:
  """Scores of agents that say what the noise of a label is."""
  truths = {'aleatoric': 'the noise', 'epistemic': 'the exact posterior of f'}
  scores = {}
  for part, truth in truths.items():
    scores[f'{part}_error'] = Score(
        _NNGP, 'lower', '1', f'{part} error', 'root mean square difference of '
        f'the logarithms of the {part} std and that of {truth}',
        floor='epistemic_error_floor' if part == 'epistemic' else None)
    scores[f'{part}_ratio'] = Score(
        _NNGP, 'none', '1', f'{part} ratio', f'geometric mean of the {part} '
        f'std over that of {truth}')
    scores[f'{part}_correlation'] = Score(
        _NNGP, 'higher', '1', f'{part} correlation', 'correlation over test '
        f'points of the logarithms of the {part} std and that of {truth}',
        positive=False)
  scores['epistemic_error_floor'] = Score(
      _NNGP, 'none', '1', 'floor of the epistemic error', 'what as many draws '
      'of the exact posterior would have', may_be_infinite=True)
  scores['split_correlation'] = Score(
      _NNGP, 'none', '1', 'correlation of the parts', 'correlation over test '
      'points of the logarithms of aleatoric and epistemic std',
      positive=False)
  scores['split_correlation_exact'] = Score(
      _NNGP, 'none', '1', 'true correlation of the parts', 'the same of the '
      'noise and the exact posterior', positive=False)
  scores['mixture_nll'] = Score(
      _NNGP, 'lower', 'nats', 'NLL of the mixture', 'negative log density of '
      "test labels under the mixture of members' Gaussians", positive=False)
  return scores


def _out_of_distribution() -> dict[str, Score]:
  """Scores of telling other data from test points, averaged over sets."""
  signals = {
      'msp': ('MSP', 'the maximum softmax probability'),
      'entropy': ('entropy', 'the entropy of the mean probabilities'),
      'mi': ('MI', 'the epistemic uncertainty (mutual information)'),
  }
  parts = {
      'auroc': ('higher', '1', 'OOD AUROC', 'area under the ROC curve of '
                'points out of distribution'),
      'aupr': ('higher', '1', 'OOD AUPR', 'average precision with points out '
               'of distribution as positive, to be seen beside their share '
               'ood_base_rate'),
      'fpr95': ('lower', 'share', 'OOD FPR95', 'share of test points that are '
                'refused where 95 % of the points out of distribution are'),
      'fpr95_in': ('lower', 'share', 'OOD FPR95, in-distribution positive',
                   'share of the points out of distribution that pass where '
                   '95 % of the test points do'),
  }
  scores = {
      f'ood_{part}_{signal}': Score(
          _CLASSES, direction, unit, f'{label} by {short}',
          f'{meaning}, by {long}; mean over sets')
      for part, (direction, unit, label, meaning) in parts.items()
      for signal, (short, long) in signals.items()}
  for name, label in (('total_uncertainty', 'total uncertainty'),
                      ('aleatoric_uncertainty', 'aleatoric uncertainty'),
                      ('epistemic_uncertainty', 'epistemic uncertainty (MI)'),
                      ('disagreement', 'disagreement')):
    unit = 'share' if name == 'disagreement' else 'nats'
    scores[f'ood_{name}'] = Score(
        _CLASSES, 'none', unit, f'{label} out of distribution',
        f'{label} at points out of distribution, mean over sets')
  scores['ood_base_rate'] = Score(
      _CLASSES, 'none', 'share', 'share of OOD points', 'share of points out '
      'of distribution among them and the test points, mean over sets; the '
      'AUPR of a detector that knows nothing')
  return scores


SCORES: Mapping[str, Score] = {
    'kl_estimate': Score(
        _NNGP, 'lower', 'nats', 'KL', 'mean over test points of '
        'KL(exact posterior || agent), Gaussians with the means and stds of '
        'both, after 0.001 is added to every std', required=True,
        floor='kl_floor', inverted_points=1),
    'kl_reverse': Score(
        _NNGP, 'lower', 'nats', 'reverse KL', 'mean over test points of '
        'KL(agent || exact posterior), with the same ridge; eq. 2 of the Layer '
        'Ensembles paper',
        required=True),
    'mean_error': Score(
        _NNGP, 'lower', '1', 'mean error', 'mean relative error of the mean',
        required=True),
    'std_error': Score(
        _NNGP, 'lower', '1', 'std error', 'mean relative error of the std, '
        'with the same ridge',
        required=True),
    'mean_rmse': Score(
        _NNGP, 'lower', '1', 'RMSE of the mean', 'root mean squared error of '
        'the mean against the posterior mean', required=True),
    'std_ratio': Score(
        _NNGP, 'none', '1', 'std ratio', 'mean ratio of the std to the '
        "posterior's, with the same ridge; 1 is right", required=True),
    'kl_floor': Score(
        _NNGP, 'none', 'nats', 'floor', 'expected KL of as many independent '
        'draws of the exact posterior', required=True, may_be_infinite=True),
    'joint_kl_dyadic_tau10': Score(
        _NNGP, 'lower', 'nats', 'joint KL', 'mean over dyadic blocks (ten '
        'points, five around each of two anchors) of KL(exact posterior || '
        'agent) of their ten labels, jointly Gaussian with the means and '
        'covariances of both, the noise included; finite for any number of '
        'samples', floor='joint_kl_dyadic_tau10_floor'),
    'joint_kl_dyadic_tau10_floor': Score(
        _NNGP, 'none', 'nats', 'joint floor', 'what as many independent draws '
        'of the exact posterior score there on average, simulated'),
    'joint_kl_tau2': Score(
        _NNGP, 'lower', 'nats', 'joint KL, 2 test points', 'mean over pairs of '
        'neighbouring test points of KL(exact posterior || agent) of f, '
        'jointly Gaussian with the ridge of kl_estimate; such points are '
        'nearly independent, so this is about twice kl_estimate, a contrast '
        'to joint_kl_dyadic_tau10', floor='joint_kl_tau2_floor',
        may_be_infinite=True, inverted_points=2),
    'joint_kl_tau2_floor': Score(
        _NNGP, 'none', 'nats', 'floor, 2 test points', 'expected joint KL over '
        'pairs of as many independent draws of the exact posterior, infinite '
        'for four or fewer', may_be_infinite=True),
    'joint_kl_tau10': Score(
        _NNGP, 'lower', 'nats', 'joint KL, 10 test points', 'the same over '
        'blocks of ten neighbouring test points; infinite for ten samples or '
        'fewer', floor='joint_kl_tau10_floor', may_be_infinite=True,
        inverted_points=10),
    'joint_kl_tau10_floor': Score(
        _NNGP, 'none', 'nats', 'floor, 10 test points', 'expected joint KL '
        'over blocks of ten of as many independent draws of the exact '
        'posterior, infinite for twelve or fewer', may_be_infinite=True),
    'wasserstein': Score(
        _NNGP, 'lower', '1', 'Wasserstein', 'mean over test points of the '
        'squared 2-Wasserstein distance between the Gaussian marginals of f, '
        "over the posterior's variance; 1 is as far as a point mass at the "
        'posterior mean, and it is finite for a single network',
        floor='wasserstein_floor'),
    'wasserstein_floor': Score(
        _NNGP, 'none', '1', 'Wasserstein floor', 'expected Wasserstein score '
        'of as many independent draws of the exact posterior'),
    'crps_excess': Score(
        _NNGP, 'lower', '1', 'CRPS excess', 'continuous ranked probability '
        'score of held-out labels under the Gaussian plug-in predictive, minus '
        "that of the posterior's, in the unit of the labels; its noise comes "
        'from the labels', positive=False),
    'crps_excess_expected': Score(
        _NNGP, 'lower', '1', 'expected CRPS excess', 'expectation of '
        'crps_excess over labels of the exact predictive distribution; 0 for '
        'the exact posterior'),
    'log_score_excess': Score(
        _NNGP, 'lower', 'nats', 'log score excess', 'negative log density of '
        'held-out labels under the Gaussian plug-in predictive, minus that of '
        "the posterior's; its noise comes from the labels", positive=False),
    'log_score_excess_expected': Score(
        _NNGP, 'lower', 'nats', 'expected log score excess', 'expectation of '
        'log_score_excess over labels of the exact predictive distribution, '
        'the KL between the two predictive distributions; 0 for the exact '
        'posterior'),
    **{f'coverage_{level}': Score(
        _NNGP, 'none', 'share', f'coverage of {level} %', 'share of test '
        f"points where f lies inside the agent's central {level} % interval "
        f'(Gaussian plug-in); {level / 100} is right on average over problems')
       for level in (50, 90, 99)},
    # Of agents that say what the noise is.
    **_split_of_variance(),

    # Of the members themselves, wherever there are two or more.
    'weight_cosine': Score(
        (*_NNGP, *_CLASSES), 'none', '1', 'cosine of weights', "mean cosine of "
        "two members' effective weights, all layers together; biases and prior "
        'functions are left out', positive=False),
    'weight_cosine_biases': Score(
        (*_NNGP, *_CLASSES), 'none', '1', 'cosine of weights and biases',
        "the same of members' weights and biases, scales and offsets of norms "
        'included', positive=False),

    # Classification. The prediction is the mean of the members' probabilities
    # where nothing else is said.
    'accuracy': Score(
        _CLASSES, 'higher', 'share', 'accuracy', 'share of test points whose '
        'most probable class is the label', required=True),
    'nll': Score(
        _CLASSES, 'lower', 'nats', 'NLL', 'mean negative log-likelihood of the '
        'labels', required=True),
    'brier': Score(
        _CLASSES, 'lower', '1', 'Brier', 'mean squared distance of the '
        'probabilities from the label, summed over classes', required=True),
    'ece': Score(
        _CLASSES, 'lower', 'share', 'ECE', 'expected calibration error, 15 '
        'bins of equal width', required=True),
    'adaptive_ece': Score(
        _CLASSES, 'lower', 'share', 'adaptive ECE', 'expected calibration '
        'error, 15 bins of equally many points', required=True),
    'member_accuracy': Score(
        _CLASSES, 'higher', 'share', 'accuracy of a member', 'mean over '
        'members of the accuracy of each alone', required=True),
    'member_nll': Score(
        _CLASSES, 'lower', 'nats', 'NLL of a member', 'mean over members of '
        'the NLL of each alone', required=True),
    'member_brier': Score(
        _CLASSES, 'lower', '1', 'Brier of a member', 'mean over members of '
        'the Brier score of each alone', required=True),
    'member_ece': Score(
        _CLASSES, 'lower', 'share', 'ECE of a member', 'mean over members of '
        'the ECE of each alone', required=True),
    'member_adaptive_ece': Score(
        _CLASSES, 'lower', 'share', 'adaptive ECE of a member', 'mean over '
        'members of the adaptive ECE of each alone', required=True),
    'total_uncertainty': Score(
        _CLASSES, 'none', 'nats', 'total uncertainty', 'mean entropy of the '
        'mean probabilities', required=True),
    'aleatoric_uncertainty': Score(
        _CLASSES, 'none', 'nats', 'aleatoric uncertainty', 'mean entropy of '
        "each member's probabilities", required=True),
    'epistemic_uncertainty': Score(
        _CLASSES, 'none', 'nats', 'epistemic uncertainty (MI)', 'total less '
        'aleatoric uncertainty: mutual information of label and member, the '
        'Jensen-Shannon divergence of members', required=True),
    'disagreement': Score(
        _CLASSES, 'none', 'share', 'disagreement', 'share of pairs of members '
        'that predict different classes'),
    'variation_ratio': Score(
        _CLASSES, 'none', 'share', 'variation ratio', 'share of members that '
        'do not choose the class that most of them choose'),
    'member_kl': Score(
        _CLASSES, 'none', 'nats', 'KL of members', 'mean KL of the '
        'probabilities of two members'),
    'logit_correlation': Score(
        _CLASSES, 'none', '1', 'correlation of logits', 'mean correlation of '
        "two members' logits, each point's mean taken off", positive=False),
    'aurc': Score(
        _CLASSES, 'lower', 'share', 'AURC', 'error of selective prediction, '
        'averaged over the shares of points that are predicted',
        required=True),
    'joint_nll': Score(
        _CLASSES, 'lower', 'nats', 'joint NLL', 'negative log-likelihood of '
        'the labels of 10 test points together, not divided by 10'),
    'dyadic_nll': Score(
        _CLASSES, 'lower', 'nats', 'dyadic NLL', 'negative log-likelihood of '
        'the labels of 10 inputs at two test points together (dyadic '
        'sampling), not divided by 10'),
    **_on_shifted_sets(),
    **_out_of_distribution(),
}

# Selections that read what no other agent is given, and what that is: boards
# and claims say it beside their rows. (Here, since reports know no jax.)
PRIVILEGED_SELECTIONS: Mapping[str, str] = {
    'oracle': 'members ranked by the exact posterior at validation points, '
              'which nobody has on real data',
    'val_nll': 'members ranked by validation labels that no other agent learns '
               'from (1,000 on the testbed, 100 times the training set at '
               'T = 10)',
    'weights_stacking': 'members weighted by validation labels that no other '
                        'agent learns from',
}


def check_score(name: str, score_set: str | None = None) -> Score:
  """The entry of a score.

  Args:
    name: of the score.
    score_set: it must belong to this one; None for any.

  Raises:
    ValueError: there is no such score, or not in this set.
  """
  known = [key for key, score in SCORES.items()
           if score_set is None or score_set in score.score_sets]
  if name not in known:
    where = '' if score_set is None else f' of {score_set} problems'
    raise ValueError(f'score{where} must be one of {", ".join(known)}; got '
                     f'{name!r}.')
  return SCORES[name]


def scores_of(score_set: str) -> dict[str, Score]:
  """The scores of a score set by name, in the order of the table.

  Raises:
    ValueError: there is no such set.
  """
  if score_set not in SCORE_SETS:
    raise ValueError(f'score_set must be one of {", ".join(SCORE_SETS)}; got '
                     f'{score_set!r}.')
  return {name: score for name, score in SCORES.items()
          if score_set in score.score_sets}
