"""Readers of image formats: what they read, and damaged files."""

import gzip
import os
import pathlib
import pickle
import struct

import numpy as np
import pytest
import scipy.io
from small_image_files import cifar_rows
from small_image_files import COLOUR
from small_image_files import GREY
from small_image_files import idx_bytes
from small_image_files import LABELS
from small_image_files import refuses
from small_image_files import write
from small_image_files import write_mnist

from enn_ensembles.problems import image_files
from enn_ensembles.problems import image_formats

RNG = np.random.default_rng(0)


def test_damaged_idx(tmp_path):
  folder = tmp_path / 'mnist'
  write_mnist(folder)
  images = folder / 't10k-images-idx3-ubyte.gz'
  labels = folder / 't10k-labels-idx1-ubyte.gz'
  whole = images.read_bytes()
  for content, pattern in [
      (whole[:-100], 'truncated'), (b'', 'begins with'),
      (b'PK' + whole, 'damaged or truncated'),
      (whole[:200] + bytes(50) + whole[250:], 'damaged'),
      (gzip.compress(idx_bytes(GREY)[:-1]), 'fewer than the 4704 bytes'),
      (gzip.compress(idx_bytes(GREY) + b'x'), 'more than the 4704 bytes'),
      (gzip.compress(idx_bytes(GREY, kind=13)), "begins with '00000d03'"),
      (gzip.compress(idx_bytes(GREY)[:9]), 'header ends early'),
      (gzip.compress(struct.pack('>HBB3I', 0, 8, 3, *[2**31] * 3)),
       'its header says'),
      (gzip.compress(idx_bytes(GREY[:, :20])), r'uint8 \[N, 28, 28, 1\]'),
      (gzip.compress(idx_bytes(GREY[:5])), 'one label per image'),
  ]:
    images.write_bytes(content)
    message = refuses(pattern, 'mnist', tmp_path)
    assert str(folder) in message
  images.write_bytes(whole)
  labels.write_bytes(gzip.compress(idx_bytes(LABELS + 1)))
  refuses('labels must be from 0 to 9, got 1 to 10', 'mnist', tmp_path)
  labels.write_bytes(gzip.compress(idx_bytes(GREY)))
  refuses('one label per image', 'mnist', tmp_path)


def test_idx_reader_has_all_shapes(tmp_path):
  for shape in ((5,), (2, 3), (1, 2, 3, 4)):
    array = RNG.integers(0, 256, shape, np.uint8)
    path = write(tmp_path / 'array-idx', idx_bytes(array))
    np.testing.assert_array_equal(image_formats.read_idx(path), array)


def test_cifar_binary(tmp_path):
  rows = np.concatenate([LABELS[:, None], cifar_rows()], axis=1)
  folder = tmp_path / 'cifar-10-batches-bin'
  for batch in range(5):
    write(folder / f'data_batch_{batch + 1}.bin', rows[batch].tobytes())
  write(folder / 'test_batch.bin', rows[5:].tobytes())
  train = image_files.read_images('cifar10', 'train', tmp_path)
  np.testing.assert_array_equal(train.images, COLOUR[:5])
  np.testing.assert_array_equal(train.labels, LABELS[:5])
  test = image_files.read_images('cifar10', 'test', tmp_path)
  np.testing.assert_array_equal(test.images, COLOUR[5:])
  write(folder / 'test_batch.bin', rows.tobytes()[:-7])
  refuses('no whole number of records of 3073', 'cifar10', tmp_path)
  write(folder / 'test_batch.bin', b'')
  refuses('0 bytes', 'cifar10', tmp_path)
  # CIFAR-100: the fine class is the second byte.
  rows = np.concatenate([LABELS[:, None] + 10, LABELS[:, None] + 90,
                         cifar_rows()], axis=1)
  write(tmp_path / 'cifar-100-binary/test.bin', rows.tobytes())
  data = image_files.read_images('cifar100', 'test', tmp_path)
  np.testing.assert_array_equal(data.labels, LABELS + 90)
  np.testing.assert_array_equal(data.images, COLOUR)
  assert data.num_classes == 100


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_cifar_python(tmp_path, protocol):
  content = {b'batch_label': b'testing batch', b'data': cifar_rows(),
             b'labels': LABELS.tolist(), b'filenames': [b'a.png'] * 6}
  path = write(tmp_path / 'cifar-10-batches-py/test_batch',
               pickle.dumps(content, protocol))
  data = image_files.read_images('cifar10', 'test', tmp_path)
  np.testing.assert_array_equal(data.images, COLOUR)
  np.testing.assert_array_equal(data.labels, LABELS)
  # Keys as Python 3 writes them, labels as an array, axes of Fortran.
  path.write_bytes(pickle.dumps({
      'data': np.asfortranarray(cifar_rows()),
      'labels': LABELS.astype('>i4')}, protocol))
  again = image_files.read_images('cifar10', 'test', tmp_path)
  assert again.sha256 == data.sha256


def test_cifar_100_python(tmp_path):
  write(tmp_path / 'cifar-100-python/test', pickle.dumps(
      {b'data': cifar_rows(), b'fine_labels': [99] * 6,
       b'coarse_labels': [0] * 6}, 2))
  data = image_files.read_images('cifar100', 'test', tmp_path)
  assert data.labels.tolist() == [99] * 6


class Evil:
  """Runs a command when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def test_pickles_run_nothing(tmp_path):
  path = tmp_path / 'cifar-10-batches-py/test_batch'
  write(path, pickle.dumps({b'data': Evil(tmp_path / 'made'),
                            b'labels': [1]}, 2))
  refuses('it asks for posix.mkdir', 'cifar10', tmp_path)
  assert not (tmp_path / 'made').exists()
  for content, pattern in [
      (pickle.dumps({b'data': pathlib.PurePosixPath('a')}), 'asks for pathlib'),
      (pickle.dumps({b'data': np.array([None])}, 2), 'not read'),
      (pickle.dumps({b'data': np.float64(2)}, 2), 'asks for numpy'),
      (pickle.dumps({b'data': cifar_rows()})[:5000], 'no pickle of CIFAR'),
      (b'\x80\x02junk', 'no pickle of CIFAR'), (b'', 'no pickle of CIFAR'),
      (pickle.dumps([1]), 'must hold a dict, got list'),
      (pickle.dumps({b'data': cifar_rows()}), 'has no labels'),
      (pickle.dumps({b'data': cifar_rows()[:, :9], b'labels': [1] * 6}),
       'data must be uint8'),
      (pickle.dumps({b'data': [1], b'labels': [1]}), 'data must be uint8'),
      (pickle.dumps({b'data': cifar_rows(), b'labels': ['cat'] * 6}),
       'must be a list of integers'),
      (pickle.dumps({b'data': cifar_rows(), b'labels': [1] * 5}),
       'one label per image'),
      (pickle.dumps({b'data': cifar_rows(), b'labels': [10] * 6}),
       'from 0 to 9'),
  ]:
    path.write_bytes(content)
    refuses(pattern, 'cifar10', tmp_path)


def test_svhn(tmp_path):
  path = tmp_path / 'svhn/test_32x32.mat'
  path.parent.mkdir()
  labels = np.where(LABELS == 0, 10, LABELS)[:, None]
  scipy.io.savemat(path, {'X': COLOUR.transpose(1, 2, 3, 0), 'y': labels})
  data = image_files.read_images('svhn', 'test', tmp_path)
  np.testing.assert_array_equal(data.images, COLOUR)
  np.testing.assert_array_equal(data.labels, LABELS)
  whole = path.read_bytes()
  # Without a folder of its own it is found too.
  write(tmp_path / 'loose/test_32x32.mat', whole)
  assert image_files.read_images('svhn', 'test',
                                 tmp_path / 'loose').sha256 == data.sha256
  path.write_bytes(whole[:len(whole) // 2])
  refuses('damaged or truncated', 'svhn', tmp_path)
  path.write_bytes(b'')
  refuses('damaged or truncated', 'svhn', tmp_path)
  scipy.io.savemat(path, {'y': labels})
  refuses('has no X', 'svhn', tmp_path)
  scipy.io.savemat(path, {'X': COLOUR[0], 'y': labels})
  refuses('X must be', 'svhn', tmp_path)
  scipy.io.savemat(path, {'X': COLOUR.transpose(1, 2, 3, 0),
                          'y': labels + 0.5})
  refuses('whole numbers', 'svhn', tmp_path)


def test_what_the_system_refuses_is_not_called_damaged(tmp_path):
  for read in (image_formats.read_idx, image_formats.read_npy,
               lambda path: image_formats.read_cifar_binary(path, 1)):
    with pytest.raises(ValueError, match='cannot be read: it is no regular'):
      read(tmp_path)


def test_a_header_may_not_ask_for_more_than_the_memory(tmp_path):
  with open(tmp_path / 'a.npy', 'wb') as stream:
    np.lib.format.write_array_header_1_0(
        stream, {'descr': '|u1', 'fortran_order': False, 'shape': (1 << 50,)})
  with pytest.raises(ValueError, match='a.npy cannot be read'):
    image_formats.read_npy(tmp_path / 'a.npy')
