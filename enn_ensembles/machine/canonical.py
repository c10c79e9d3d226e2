"""One text, and one hash, for one config."""

from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

_LATER = 'later'


def later_field(default: Any) -> Any:
  """A field of a config that is added after results have names.

  Its default means what the config meant without the field, and may therefore
  never change. `named_fields` leaves the field out while it has its default:
  earlier results keep their names, and configs that they hold, which lack the
  field, are read as what they were.
  """
  return dataclasses.field(default=default, metadata={_LATER: True})


def named_fields(config: Any, without: Collection[str] = ()) -> dict[str, Any]:
  """Field -> value of a dataclass: what names and rows hold of a config.

  All fields are there but later ones that have their default, see
  `later_field`, and those that are named in `without`.
  """
  return {
      field.name: getattr(config, field.name)
      for field in dataclasses.fields(config) if field.name not in without
      and not (field.metadata.get(_LATER)
               and getattr(config, field.name) == field.default)}


def canonical_json(config: Any) -> str:
  """One text for one config: sorted keys, no spaces.

  Dataclasses are dicts of their `named_fields`. Integers and equal floats give
  the same text (1 and 1.0 are one setting).

  Raises:
    ValueError: a value has no such text (a function, NaN, infinity, an array).
  """

  def plain(value: Any) -> Any:
    # Most values are these, and dataclasses and mappings are slow to tell.
    if value is None or type(value) in (str, bool, int):
      return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
      value = named_fields(value)
    if isinstance(value, Mapping):
      return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
      return [plain(v) for v in value]
    if isinstance(value, str):
      return value
    if isinstance(value, (bool, np.bool_)):
      return bool(value)
    if isinstance(value, (int, np.integer)):
      return int(value)
    if isinstance(value, (float, np.floating)) and np.isfinite(value):
      return int(value) if float(value).is_integer() else float(value)
    raise ValueError(
        f'a config cannot hold {value!r} ({type(value).__name__}).')

  return json.dumps(plain(config), sort_keys=True, separators=(',', ':'),
                    allow_nan=False)


def config_hash(config: Any) -> str:
  """The first ten hexadecimal digits of the config's SHA-256."""
  return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:10]
