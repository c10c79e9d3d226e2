"""The flag that says where files of real data are."""

from absl import flags

from experiments import cli

DATA_DIR = flags.DEFINE_string(
    'data_dir', None, 'Folder with files of real data. Default: the '
    'environment variable ENN_ENSEMBLES_DATA.')


def data_dir() -> str | None:
  """The folder; None if the flag was not given.

  Raises:
    ValueError: it is no folder.
  """
  cli.check_is_folder(DATA_DIR)
  return DATA_DIR.value
