"""Image data sets by their names: where files lie, and what is missing."""

import gzip
import os

import numpy as np
import pytest
from small_image_files import COLOUR
from small_image_files import GREY
from small_image_files import LABELS
from small_image_files import refuses
from small_image_files import write_mnist

from enn_ensembles.problems import image_files


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
