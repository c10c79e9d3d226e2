"""Readers of image files, on small files that the tests write themselves."""

import gzip
import os
import pathlib
import pickle
import struct

import numpy as np
import pytest
import scipy.io

from enn_ensembles.problems import image_data
from enn_ensembles.problems import image_files
from enn_ensembles.problems import image_formats

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 28, 28), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 32, 32, 3), np.uint8)
LABELS = np.array([3, 0, 9, 1, 1, 7], np.uint8)


def idx_bytes(array, kind=8):
  header = struct.pack('>HBB', 0, kind, array.ndim)
  return (header + struct.pack(f'>{array.ndim}I', *array.shape)
          + array.tobytes())


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def write_mnist(folder, images=GREY, labels=LABELS, start='t10k'):
  write(folder / f'{start}-images-idx3-ubyte.gz',
        gzip.compress(idx_bytes(images)))
  write(folder / f'{start}-labels-idx1-ubyte.gz',
        gzip.compress(idx_bytes(labels)))


def cifar_rows(images=COLOUR):
  return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(
      len(images), -1)


def refuses(pattern, name, tmp_path, split='test'):
  """The read is refused in one line that matches."""
  with pytest.raises(ValueError, match=pattern) as caught:
    image_files.read_images(name, split, tmp_path)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize('name, folder', [
    ('mnist', 'mnist'), ('mnist', 'MNIST/raw'),
    ('fashion_mnist', 'fashion_mnist'), ('kmnist', 'KMNIST/raw'),
    ('notmnist', 'notmnist')])
def test_idx(tmp_path, name, folder):
  write_mnist(tmp_path / folder)
  data = image_files.read_images(name, 'test', tmp_path)
  np.testing.assert_array_equal(data.images[..., 0], GREY)
  np.testing.assert_array_equal(data.labels, LABELS)
  assert data.labels.dtype == np.int32 and data.num_classes == 10
  assert data.name == name and data.shape == (28, 28, 1)
  # Not compressed, it is the same data.
  path = tmp_path / folder / 't10k-images-idx3-ubyte'
  for stem in ('images-idx3', 'labels-idx1'):
    path = tmp_path / folder / f't10k-{stem}-ubyte.gz'
    path.with_suffix('').write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
  plain = image_files.read_images(name, 'test', tmp_path)
  assert plain.sha256 == data.sha256


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


def test_missing_files_say_where_they_come_from(tmp_path, monkeypatch):
  monkeypatch.delenv(image_files.ENVIRONMENT_VARIABLE, raising=False)
  message = refuses('has no file', 'fashion_mnist', tmp_path)
  assert 't10k-images-idx3-ubyte.gz' in message and str(tmp_path) in message
  assert 'https://github.com/zalandoresearch/fashion-mnist' in message
  # What is there in part names the part that is not.
  write_mnist(tmp_path / 'MNIST/raw')
  (tmp_path / 'MNIST/raw/t10k-labels-idx1-ubyte.gz').unlink()
  refuses('no file MNIST/raw/t10k-labels-idx1-ubyte.gz', 'mnist', tmp_path)
  refuses('cifar-10-batches-bin/data_batch_1.bin', 'cifar10', tmp_path,
          'train')
  for name in image_files.FILE_SETS:
    assert 'http' in refuses('comes from', name, tmp_path)
  with pytest.raises(ValueError, match='ENN_ENSEMBLES_DATA'):
    image_files.read_images('mnist', 'test')
  with pytest.raises(ValueError, match='there is none at'):
    image_files.read_images('mnist', 'test', tmp_path / 'nowhere')
  refuses("must be one of .*; got 'mnits'", 'mnits', tmp_path)
  refuses('without folders', 'npz:../secret', tmp_path)
  with pytest.raises(ValueError, match="got 'validation'"):
    image_files.read_images('digits', 'validation')


def test_environment_variable_names_the_folder(tmp_path, monkeypatch):
  write_mnist(tmp_path / 'mnist')
  monkeypatch.setenv(image_files.ENVIRONMENT_VARIABLE, str(tmp_path))
  assert len(image_files.read_images('mnist', 'test')) == 6


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


def test_corrupted_sets(tmp_path):
  folder = tmp_path / 'CIFAR-10-C'
  folder.mkdir()
  five = np.concatenate([COLOUR[:2] // (level + 1) for level in range(5)])
  np.save(folder / 'fog.npy', five)
  np.save(folder / 'jpeg_compression.npy', five)
  np.save(folder / 'labels.npy', np.tile(LABELS[:2].astype(np.int64), 5))
  assert image_files.corruptions_in('cifar10_c', tmp_path) == [
      'fog', 'jpeg_compression']
  levels = image_files.read_corrupted('cifar10_c', 'fog', tmp_path)
  assert [level.name for level in levels] == [
      f'cifar10_c/fog/{severity}' for severity in range(1, 6)]
  np.testing.assert_array_equal(levels[3].images, COLOUR[:2] // 4)
  np.testing.assert_array_equal(levels[3].labels, LABELS[:2])
  with pytest.raises(ValueError, match='no file snow.npy .*zenodo'):
    image_files.read_corrupted('cifar10_c', 'snow', tmp_path)
  np.save(folder / 'snow.npy', five[:9])
  with pytest.raises(ValueError, match='one label per image'):
    image_files.read_corrupted('cifar10_c', 'snow', tmp_path)
  np.save(folder / 'snow.npy', np.array([{}] * 10), allow_pickle=True)
  with pytest.raises(ValueError, match='snow.npy cannot be read'):
    image_files.read_corrupted('cifar10_c', 'snow', tmp_path)
  (folder / 'snow.npy').write_bytes((folder / 'fog.npy').read_bytes()[:900])
  with pytest.raises(ValueError, match='snow.npy cannot be read'):
    image_files.read_corrupted('cifar10_c', 'snow', tmp_path)

  folder = tmp_path / 'mnist_c/fog'
  folder.mkdir(parents=True)
  np.save(folder / 'test_images.npy', GREY[..., None])
  np.save(folder / 'test_labels.npy', LABELS)
  assert image_files.corruptions_in('mnist_c', tmp_path) == ['fog']
  one, = image_files.read_corrupted('mnist_c', 'fog', tmp_path)
  assert one.name == 'mnist_c/fog'
  np.testing.assert_array_equal(one.images[..., 0], GREY)
  with pytest.raises(ValueError, match='no folder CIFAR-10-C or'):
    image_files.corruptions_in('cifar10_c', tmp_path / 'mnist_c')


def test_npz(tmp_path):
  np.savez(tmp_path / 'mine.npz', x_train=GREY, y_train=LABELS,
           x_test=COLOUR / 255., y_test=LABELS[::-1])
  train = image_files.read_images('npz:mine', 'train', tmp_path)
  np.testing.assert_array_equal(train.images[..., 0], GREY)
  test = image_files.read_images('npz:mine', 'test', tmp_path)
  assert test.images.dtype == np.float32
  np.testing.assert_allclose(test.images, COLOUR / 255., atol=1e-7)
  np.testing.assert_array_equal(test.labels, LABELS[::-1])
  # One file a split.
  np.savez(tmp_path / 'two_test.npz', x=COLOUR, y=LABELS)
  data = image_files.read_images('npz:two', 'test', tmp_path)
  assert data.images.dtype == np.uint8
  # No split: never taken for training images.
  np.savez(tmp_path / 'one.npz', x=COLOUR, y=LABELS)
  assert image_files.read_images('npz:one', 'test',
                                 tmp_path).sha256 == data.sha256
  refuses('must hold x_train and y_train; it holds x, y', 'npz:one', tmp_path,
          'train')
  refuses('no file none.npz or none_test.npz', 'npz:none', tmp_path)


def test_bad_npz(tmp_path):
  path = tmp_path / 'bad.npz'
  for arrays, pattern in [
      (dict(x=GREY, y=LABELS[:4]), 'one label per image'),
      (dict(x=GREY.astype(int), y=LABELS), 'must be uint8 or float32'),
      (dict(x=GREY * 1., y=LABELS), r'must be in \[0, 1\]'),
      (dict(x=GREY * np.nan, y=LABELS), r'must be in \[0, 1\]'),
      (dict(x=GREY[0], y=LABELS), 'one label per image'),
      (dict(x=GREY[:, 0], y=LABELS), r'\[N, H, W, C\]'),
      (dict(x=GREY, y=LABELS + 0.5), 'whole numbers'),
      (dict(x=GREY, y=LABELS * np.nan), 'whole numbers'),
      (dict(x=GREY, y=np.full(6, 'cat')), 'whole numbers'),
      (dict(x=GREY, y=LABELS - 1.), 'from 0 to'),
      (dict(x=GREY, y=LABELS * 1e6), 'from 0 to 9999'),
      (dict(x=GREY[:0], y=LABELS[:0]), 'without zeros'),
      (dict(x=GREY), 'must hold'), ({}, 'it holds nothing')]:
    np.savez(path, **arrays)
    refuses(pattern, 'npz:bad', tmp_path)
  np.savez(path, x=np.array([{}] * 6), y=LABELS)
  refuses('bad.npz cannot be read', 'npz:bad', tmp_path)
  np.savez(path, x=GREY, y=LABELS)
  path.write_bytes(path.read_bytes()[:1000])
  refuses('bad.npz cannot be read', 'npz:bad', tmp_path)


def test_checksum_is_of_the_data():
  data = image_data.ImageData('a', GREY[..., None], LABELS.astype(np.int32), 10)
  same = image_data.ImageData('b', GREY[..., None].copy(),
                              LABELS.astype(np.int32), 10)
  assert data.sha256 == same.sha256 and len(data.sha256) == 64
  other = GREY[..., None].copy()
  other[5, 27, 27] ^= 1
  changed = [
      image_data.ImageData('a', other, same.labels, 10),
      image_data.ImageData('a', same.images, same.labels[::-1].copy(), 10),
      image_data.ImageData('a', same.images.reshape(6, 14, 56, 1), same.labels,
                           10)]
  assert len({data.sha256, *(one.sha256 for one in changed)}) == 4
  with pytest.raises(ValueError, match='read-only'):
    data.images[0] = 0


@pytest.mark.skipif(not os.environ.get(image_files.ENVIRONMENT_VARIABLE),
                    reason='ENN_ENSEMBLES_DATA names no folder of data sets')
def test_real_files():
  found = 0
  for name, num_train in (('mnist', 60000), ('fashion_mnist', 60000),
                          ('cifar10', 50000)):
    try:
      train = image_files.read_images(name, 'train')
      test = image_files.read_images(name, 'test')
    except ValueError:
      continue
    found += 1
    assert len(train) == num_train and len(test) == 10000
    assert np.bincount(train.labels).min() > 0.08 * num_train
    assert train.images.max() == 255
    assert train.sha256 != test.sha256
  if not found:
    pytest.skip('none of mnist, fashion_mnist, cifar10 is there')


def test_what_the_system_refuses_is_not_called_damaged(tmp_path):
  for read in (image_formats.read_idx, image_formats.read_npy,
               lambda path: image_formats.read_cifar_binary(path, 1)):
    with pytest.raises(ValueError, match='cannot be read: it is no regular'):
      read(tmp_path)


@pytest.mark.parametrize('file, name', [
    ('mnist/t10k-images-idx3-ubyte.gz', 'mnist'),
    ('mnist/t10k-images-idx3-ubyte', 'mnist'),
    ('cifar-10-batches-bin/test_batch.bin', 'cifar10'),
    ('cifar-10-batches-py/test_batch', 'cifar10'),
    ('test_32x32.mat', 'svhn'), ('own.npz', 'npz:own'),
    ('own_test.npz', 'npz:own'),
    ('MNIST-C/fog/test_images.npy', None)])
def test_what_is_no_regular_file_is_refused(tmp_path, file, name):
  path = tmp_path / file
  path.parent.mkdir(parents=True, exist_ok=True)
  if name == 'mnist':
    path.with_name(path.name.replace('images-idx3', 'labels-idx1')).touch()

  def refused(reason):
    with pytest.raises(ValueError, match=reason) as caught:
      if name is None:
        image_files.read_corrupted('mnist_c', 'fog', tmp_path)
      else:
        image_files.read_images(name, 'test', tmp_path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)

  os.mkfifo(path)  # To open one for reading waits for who writes.
  refused('no regular file')
  path.unlink()
  path.mkdir()
  refused('no regular file')
  path.rmdir()
  path.symlink_to('/dev/zero')  # It has no end.
  refused('no regular file')
  path.unlink()
  path.symlink_to(path)
  refused('cannot be read')
  path.unlink()
  path.symlink_to(tmp_path / 'nowhere')
  refused('No such file')


def test_a_header_may_not_ask_for_more_than_the_memory(tmp_path):
  with open(tmp_path / 'a.npy', 'wb') as stream:
    np.lib.format.write_array_header_1_0(
        stream, {'descr': '|u1', 'fortran_order': False, 'shape': (1 << 50,)})
  with pytest.raises(ValueError, match='a.npy cannot be read'):
    image_formats.read_npy(tmp_path / 'a.npy')


def test_idx_reader_has_all_shapes(tmp_path):
  for shape in ((5,), (2, 3), (1, 2, 3, 4)):
    array = RNG.integers(0, 256, shape, np.uint8)
    path = write(tmp_path / 'array-idx', idx_bytes(array))
    np.testing.assert_array_equal(image_formats.read_idx(path), array)
