"""Small image files that tests write, and what is in them."""

import gzip
import struct

import numpy as np
import pytest

from enn_ensembles.problems import image_files

_RNG = np.random.default_rng(0)
GREY = _RNG.integers(0, 256, (6, 28, 28), np.uint8)
COLOUR = _RNG.integers(0, 256, (6, 32, 32, 3), np.uint8)
LABELS = np.array([3, 0, 9, 1, 1, 7], np.uint8)


def idx_bytes(array, kind=8):
  """An idx file; its kind is that of uint8 unless a test wants another."""
  header = struct.pack('>HBB', 0, kind, array.ndim)
  return (header + struct.pack(f'>{array.ndim}I', *array.shape)
          + array.tobytes())


def write(path, content):
  """Writes a file, and makes its folder where there is none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def write_mnist(folder, images=GREY, labels=LABELS, start='t10k'):
  """The two files of a split of MNIST, whose names start as it says."""
  write(folder / f'{start}-images-idx3-ubyte.gz',
        gzip.compress(idx_bytes(images)))
  write(folder / f'{start}-labels-idx1-ubyte.gz',
        gzip.compress(idx_bytes(labels)))


def cifar_rows(images=COLOUR):
  """Images as CIFAR has them: [N, 3072], a colour after the other."""
  return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(
      len(images), -1)


def refuses(pattern, name, tmp_path, split='test'):
  """The read is refused in one line that matches."""
  with pytest.raises(ValueError, match=pattern) as caught:
    image_files.read_images(name, split, tmp_path)
  assert '\n' not in str(caught.value)
  return str(caught.value)
