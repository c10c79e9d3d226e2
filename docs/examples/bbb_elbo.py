"""What the ELBO of Bayes by backprop is on digits, by where training starts.

python docs/examples/bbb_elbo.py

Trains the network of the digits quickstart on its two problems, for as long as
the quickstart does (early stopping by validation NLL) and for 5,400 steps
without stopping. Prints a table of means over both seeds: the negative ELBO per
label is the mean cross-entropy over draws plus KL(q || p) / T, in nats,
whatever weight of the KL was trained with. Three minutes on one core.
"""

import argparse

import jax
import numpy as np

import enn_ensembles as ee
from enn_ensembles.agents import bbb
from enn_ensembles.problems import image_classification

SHARED = {'hidden_sizes': (64, 32, 16), 'learning_rate': 3e-3,
          'batch_size': 32, 'sampling': 'epochs', 'num_index_samples': 2}
LENGTHS = {'1,080, stopped early': {
    'num_batches': 1080, 'validate_every': 27, 'patience': 10},
           '5,400': {'num_batches': 5400}}
SETTINGS = [(None, 1.), (0.05, 1.), (0.05, 0.1), (0.05, 0.03), (0.05, 0.01),
            (None, 0.01)]
NUM_DRAWS = 50


def log_probabilities(sampler, data):
  """Of the labels, [draws, images]."""
  logits = sampler.draws(data.x, jax.random.split(jax.random.PRNGKey(1),
                                                  NUM_DRAWS))
  logits = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  return logits[:, np.arange(len(data.y)), np.ravel(data.y)]


def measure(problem, settings):
  sampler = ee.train(ee.make_agent('bbb', **settings), problem)
  scores = ee.score(sampler, problem, NUM_DRAWS)
  validation = log_probabilities(sampler, problem.validation)
  return [-np.log(np.exp(validation).mean(axis=0)).mean(), scores['nll'],
          scores['accuracy'],
          -log_probabilities(sampler, problem.data).mean(),
          bbb.weight_divergence(sampler.params, 1.) / len(problem.data.x)]


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.parse_args()
  problems = [image_classification.make_image_problem(
      image_classification.ImageProblemConfig(
          'digits', seed=seed, held_out=(8, 9), ood=('held_out', 'permuted'),
          shifts=('rotation', 'gaussian_noise'))) for seed in (0, 1)]
  print('| steps | initial_std | kl_weight | validation NLL | test NLL | '
        'accuracy | cross-entropy | KL / T | negative ELBO / T |')
  print('|:--|--:|--:|--:|--:|--:|--:|--:|--:|')
  for length, steps in LENGTHS.items():
    for initial_std, kl_weight in SETTINGS:
      settings = {**SHARED, **steps, 'initial_std': initial_std,
                  'kl_weight': kl_weight}
      found = np.mean([measure(problem, settings) for problem in problems],
                      axis=0)
      found = [*found, found[-2] + found[-1]]
      print('|', ' | '.join([length, str(initial_std), f'{kl_weight:g}',
                             *(f'{value:.3f}' for value in found)]), '|',
            flush=True)


if __name__ == '__main__':
  main()
