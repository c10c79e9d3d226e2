"""Trains the cases of `rivals` with this package; see `Runner` there.

Reads lines of JSON {"case", "num_steps"} and answers each with a line
{"seconds", "version"}. Seconds are those of the whole compiled training, the
draw of the minibatches included; compilation is not.
"""

import functools
import json
import sys

import jax
import numpy as np

from enn_ensembles import agents
from enn_ensembles import base
from enn_ensembles.training import loop

_BATCH = 128
_CLASSES = 10
_MLP = {'hidden_sizes': (64, 32, 16), 'first_bias_std': 0.}
_CNN = {'body': 'small_cnn'}
_FOUR = {'num_ensemble': 4, 'prior_scale': 0.}

CASES = {
    'mlp_ensemble': ('ensemble', {**_MLP, **_FOUR}),
    'mlp_batch_ensemble': ('batch_ensemble', {**_MLP, **_FOUR}),
    'small_cnn': ('map', _CNN),
    'small_cnn_ensemble': ('ensemble', {**_CNN, **_FOUR}),
    'small_cnn_layer_ensemble': ('layer_ensemble', {
        **_CNN, 'num_options': (3, 3, 3, 1, 1), 'num_index_samples': 4,
        'prior_scale': 0.}),
}


@functools.cache
def _data(case: str, num: int) -> tuple[np.ndarray, np.ndarray]:
  """Noise as images; what they show makes no difference to the time."""
  rng = np.random.default_rng(0)
  shape = (32, 32, 3) if 'cnn' in case else (28, 28, 1)
  x = rng.standard_normal((1, num, *shape), dtype=np.float32)
  return x, rng.integers(0, _CLASSES, (1, 1, num)).astype(np.int32)


def train(case: str, num_steps: int) -> float:
  """Seconds of a training of so many steps.

  Raises:
    ValueError: there is no such case.
  """
  if case not in CASES:
    raise ValueError(f'case must be one of {", ".join(CASES)}, got {case!r}.')
  name, settings = CASES[case]
  agent = agents.from_settings(name, {
      **settings, 'l2': 1e-4, 'batch_size': _BATCH, 'sampling': 'epochs',
      'num_batches': num_steps})
  x, y = _data(case, num_steps * _BATCH)
  return loop.train(agent, x, y, base.Categorical(_CLASSES),
                    jax.random.PRNGKey(0)[None]).train_seconds


def main() -> None:
  """Answers a case per line of stdin by its seconds, a line of JSON each."""
  for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps({'seconds': train(asked['case'], asked['num_steps']),
                      'version': f'jax {jax.__version__}'}), flush=True)


if __name__ == '__main__':
  main()
