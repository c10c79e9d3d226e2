"""Scores of made-up logits by torchmetrics and torch-uncertainty.

  torchmetrics_values.py OUTPUT.npz

Run by torchmetrics_values.sh, in an environment that has both. The file holds
logits and labels of an ensemble, logits out of distribution, and scores by
name, all computed in float64; `versions` says by what.
"""

import sys
from typing import Any

import numpy as np
import torch
import torch_uncertainty
from torch_uncertainty.metrics import classification as uncertainty
import torchmetrics
from torchmetrics import classification

NUM_CLASSES = 7


def make_logits() -> dict[str, np.ndarray]:
  """Five members that are right more often than not, and less sure outside."""
  rng = np.random.default_rng(20)
  labels = rng.integers(0, NUM_CLASSES, 307)
  inside = 0.7 * rng.normal(size=(5, 307, NUM_CLASSES))
  inside += rng.normal(size=(307, NUM_CLASSES))
  inside[:, np.arange(307), labels] += 2.
  outside = 0.8 * rng.normal(size=(5, 211, NUM_CLASSES))
  outside += 1.5 * rng.normal(size=(211, NUM_CLASSES))
  return {'labels': labels, 'logits': inside.astype(np.float32),
          'logits_outside': outside.astype(np.float32)}


def value(metric: Any, *arguments: torch.Tensor) -> np.ndarray:
  """What a metric says."""
  if hasattr(metric, 'set_dtype'):
    metric = metric.set_dtype(torch.float64)
  metric.update(*arguments)
  return np.asarray(metric.compute(), np.float64)


def main(output: str) -> None:
  """Writes the file."""
  torch.set_default_dtype(torch.float64)
  arrays = make_logits()
  labels = torch.tensor(arrays['labels'])
  members = torch.tensor(arrays['logits'], dtype=torch.float64).softmax(-1)
  mean, by_point = members.mean(0), members.transpose(0, 1)
  outside = torch.tensor(arrays['logits_outside'],
                         dtype=torch.float64).softmax(-1).transpose(0, 1)
  values = {
      'accuracy': value(classification.MulticlassAccuracy(
          NUM_CLASSES, average='micro'), mean, labels),
      'ece': value(classification.MulticlassCalibrationError(
          NUM_CLASSES, n_bins=15, norm='l1'), mean, labels),
      'member_ece': np.mean([value(classification.MulticlassCalibrationError(
          NUM_CLASSES, n_bins=15, norm='l1'), member, labels)
                             for member in members]),
      'nll': value(uncertainty.CategoricalNLL(), mean, labels),
      'brier': value(uncertainty.BrierScore(NUM_CLASSES), mean, labels),
      'member_brier': value(uncertainty.BrierScore(NUM_CLASSES), by_point,
                            labels),
      'adaptive_ece': value(uncertainty.AdaptiveCalibrationError(
          task='multiclass', num_classes=NUM_CLASSES, num_bins=15), mean,
                            labels),
      'total_uncertainty': value(uncertainty.Entropy(), mean),
      'aleatoric_uncertainty': value(uncertainty.Entropy(), by_point),
      'epistemic_uncertainty': value(uncertainty.MutualInformation(),
                                     by_point),
      'disagreement': value(uncertainty.Disagreement(), by_point),
      'aurc_trapezoid': value(uncertainty.AURC(), mean, labels),
  }
  information = {
      name: torch.tensor(value(uncertainty.MutualInformation(reduction='none'),
                               probs))
      for name, probs in (('inside', by_point), ('outside', outside))}
  for name, inside_values, outside_values in [
      ('msp', 1. - mean.max(-1).values, 1. - outside.mean(1).max(-1).values),
      ('mi', information['inside'], information['outside'])]:
    signal = torch.cat([inside_values, outside_values])
    is_outside = torch.cat([torch.zeros(len(inside_values)),
                            torch.ones(len(outside_values))]).long()
    # In [0, 1], or torchmetrics would take the numbers for logits.
    scaled = signal / np.log(NUM_CLASSES)
    values[f'ood_auroc_{name}'] = value(classification.BinaryAUROC(), scaled,
                                        is_outside)
    values[f'ood_aupr_{name}'] = value(classification.BinaryAveragePrecision(),
                                       scaled, is_outside)
    values[f'ood_fpr95_{name}'] = value(uncertainty.FPR95(pos_label=1), scaled,
                                        is_outside)
    values[f'ood_fpr95_in_{name}'] = value(uncertainty.FPR95(pos_label=0),
                                           -scaled, is_outside)
  versions = (f'torch {torch.__version__}, '
              f'torchmetrics {torchmetrics.__version__}, torch-uncertainty '
              f'{getattr(torch_uncertainty, "__version__", "0.13.0")}')
  np.savez_compressed(output, versions=versions, **arrays, **values)
  for name, number in values.items():
    print(f'{name:24}{number:.9f}')
  print(versions)


if __name__ == '__main__':
  main(*sys.argv[1:])
