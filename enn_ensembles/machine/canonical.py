"""One text, and one hash, for one config."""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
from typing import Any

import numpy as np


def canonical_json(config: Any) -> str:
  """One text for one config: sorted keys, no spaces, dataclasses as dicts.

  Integers and equal floats give the same text (1 and 1.0 are one setting).

  Raises:
    ValueError: a value has no such text (a function, NaN, an array).
  """

  def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
      value = {f.name: getattr(value, f.name)
               for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
      return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
      return [plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
      return value
    if isinstance(value, (int, np.integer)):
      return int(value)
    if isinstance(value, (float, np.floating)):
      return int(value) if float(value).is_integer() else float(value)
    raise ValueError(
        f'a config cannot hold {value!r} ({type(value).__name__}).')

  return json.dumps(plain(config), sort_keys=True, separators=(',', ':'),
                    allow_nan=False)


def config_hash(config: Any) -> str:
  """The first ten hexadecimal digits of the config's SHA-256."""
  return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:10]
