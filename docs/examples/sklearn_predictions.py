"""Predictions of two scikit-learn models, to be scored by score_predictions.

python docs/examples/sklearn_predictions.py PROBLEMS OUT

PROBLEMS holds what `make_problems --export_dir=PROBLEMS` wrote. For each
problem, OUT/gaussian_process and OUT/random_forest get a file. Needs numpy and
scikit-learn only.
"""

import argparse
import json
import pathlib

import numpy as np
from sklearn import ensemble
from sklearn import gaussian_process as gp

TAU = 10  # Points of a block of the joint scores.


def blocks(covariance):
  """Covariances of every TAU neighbouring points, [N / TAU, TAU, TAU]."""
  num = len(covariance) // TAU
  parts = covariance[:num * TAU, :num * TAU].reshape(num, TAU, num, TAU)
  return parts[np.arange(num), :, np.arange(num)]


def gaussian_process(x, y, noise_std, points):
  """A GP with an RBF kernel, its two parameters by marginal likelihood."""
  kernel = gp.kernels.ConstantKernel() * gp.kernels.RBF(x.shape[1]**0.5)
  model = gp.GaussianProcessRegressor(kernel, alpha=noise_std**2)
  model.fit(x, y)
  found = {}
  for prefix, at in points.items():
    mean, covariance = model.predict(at, return_cov=True)
    found |= {f'{prefix}mean': mean,
              f'{prefix}std': np.sqrt(np.diag(covariance).clip(0)),
              f'{prefix}covariances': blocks(covariance)}
  return found


def random_forest(x, y, noise_std, points):
  """The trees of a forest as samples of the function."""
  del noise_std  # It is not told.
  model = ensemble.RandomForestRegressor(300, random_state=0).fit(x, y)
  return {f'{prefix}samples': np.stack([tree.predict(at) for tree in
                                        model.estimators_])
          for prefix, at in points.items()}


def main(problems, out):
  for path in sorted(pathlib.Path(problems).glob('*.npz')):
    about = json.loads(path.with_suffix('.json').read_text())
    data = np.load(path)
    points = {'': data['x_test'], 'dyadic_': data['x_dyadic']}
    for method in (gaussian_process, random_forest):
      folder = pathlib.Path(out) / method.__name__
      folder.mkdir(parents=True, exist_ok=True)
      np.savez(folder / path.name, **method(
          data['x_train'], data['y_train'][:, 0], about['noise_std'], points))


if __name__ == '__main__':
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  for argument in ('problems', 'out'):
    parser.add_argument(argument)
  main(**vars(parser.parse_args()))
