"""Predictions of an MCMC ensemble of networks (PyPI sklearn-contrib-bde).

python docs/examples/bde_predictions.py PROBLEMS OUT

As `sklearn_predictions.py`; needs `pip install sklearn-contrib-bde`. Ten
networks of the testbed's size are trained with Adam, and from each a Markov
chain (MILE: microcanonical Langevin) draws ten sets of weights. The samples of
the function are the network's means.
"""

import argparse
import pathlib

import numpy as np


def mcmc_ensemble(x, y, points):
  """100 draws of the function, [100, N] at each set of points."""
  from bde import BdeRegressor  # --help does not need it.
  model = BdeRegressor(
      n_members=10, hidden_layers=[50, 50], epochs=500, validation_split=None,
      lr=1e-3, warmup_steps=500, n_samples=200, n_thinning=20,  # Ten are left.
      seed=0)
  model.fit(x, y)
  found = {}
  for prefix, at in points.items():
    raw = np.asarray(model.predict(at, raw=True))  # [members, draws, N, 2].
    found[f'{prefix}samples'] = raw[..., 0].reshape(-1, len(at))
  return found


def main(problems, out):
  folder = pathlib.Path(out) / 'mcmc_ensemble'
  folder.mkdir(parents=True, exist_ok=True)
  for path in sorted(pathlib.Path(problems).glob('*.npz')):
    data = np.load(path)
    found = mcmc_ensemble(data['x_train'], data['y_train'][:, 0],
                          {'': data['x_test'], 'dyadic_': data['x_dyadic']})
    np.savez(folder / path.name, **found)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  for argument in ('problems', 'out'):
    parser.add_argument(argument)
  main(**vars(parser.parse_args()))
