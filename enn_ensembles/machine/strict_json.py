"""JSON as this project writes it: an object of UTF-8, without NaN."""

import json
from typing import Any


def parse(content: bytes) -> dict[str, Any]:
  """The object that is written there.

  Raises:
    ValueError: the content is anything else, however it is wrong: other bytes,
      numbers that are not JSON, another value, nested deeper than Python reads.
  """
  def refuse(constant):
    raise ValueError(f'{constant} is not JSON')
  try:
    document = json.loads(content.decode('utf-8'), parse_constant=refuse)
  except RecursionError:
    raise ValueError('it is nested too deeply') from None
  if not isinstance(document, dict):
    raise ValueError('not a JSON object')
  return document
