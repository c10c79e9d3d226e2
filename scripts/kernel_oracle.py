"""Kernels of random points by neural-tangents, as a file for the tests.

  kernel_oracle.py OUTPUT.npz

Run by kernel_oracle.sh, in an environment that has neural-tangents. The file
holds, per activation, number of hidden layers and input dimension, points `x1`
and `x2` and the kernels k(x1, x2) and k(x1, x1), in float64; `versions` says by
what they were computed.
"""

import importlib.metadata
import sys
import types

import jax
import numpy as np

# It imports TensorFlow, and nothing here needs it.
sys.modules['neural_tangents.experimental'] = types.ModuleType(
    'neural_tangents.experimental')

from neural_tangents import stax  # noqa: E402  # pylint: disable=C0413

WEIGHT_STD = 1.2
ACTIVATIONS = {'relu': stax.Relu, 'erf': stax.Erf}


def make_kernels(activation: str, num_hidden_layers: int,
                 input_dim: int) -> dict[str, np.ndarray]:
  """Points [24, D] and [16, D], and their kernels.

  The network's weights have std WEIGHT_STD / sqrt(fan-in), the biases of its
  first layer 1 / sqrt(D); the others have none.
  """
  layers = []
  for layer in range(num_hidden_layers):
    bias_std = 1 / np.sqrt(input_dim) if layer == 0 else None
    layers += [stax.Dense(1, W_std=WEIGHT_STD, b_std=bias_std),
               ACTIVATIONS[activation]()]
  _, _, kernel_fn = stax.serial(
      *layers, stax.Dense(1, W_std=WEIGHT_STD, b_std=None))
  rng = np.random.default_rng(input_dim)
  x1, x2 = (rng.standard_normal((num, input_dim)) for num in (24, 16))
  return {'x1': x1, 'x2': x2, 'cross': kernel_fn(x1, x2, 'nngp'),
          'own': kernel_fn(x1, None, 'nngp')}


def main() -> None:
  jax.config.update('jax_enable_x64', True)
  versions = [f'{name} {importlib.metadata.version(name)}'
              for name in ('neural-tangents', 'jax', 'numpy')]
  arrays = {'weight_std': WEIGHT_STD, 'versions': versions}
  for activation in ACTIVATIONS:
    for num_hidden_layers in (1, 2, 3):
      for input_dim in (1, 10, 100):
        made = make_kernels(activation, num_hidden_layers, input_dim)
        for name, value in made.items():
          value = np.asarray(value)
          assert value.dtype == np.float64
          arrays[f'{activation}{num_hidden_layers}_D{input_dim}.{name}'] = value
  np.savez_compressed(sys.argv[1], **arrays)
  print(f'{sys.argv[1]}: {", ".join(versions)}')


if __name__ == '__main__':
  main()
