"""Text of strangers made harmless: for terminals, for CSV files, for UTF-8.

Names of agents, messages of errors and fields of files are whatever somebody
wrote. A terminal obeys escape sequences in them, a spreadsheet computes cells
that begin like a formula, and a lone surrogate cannot be encoded.
"""

import re
from typing import Any
from typing import TextIO

# Control characters of ASCII and Latin-1 but for tab, newline and carriage
# return, marks that reverse the direction of text, and lone surrogates.
_UNPRINTABLE = re.compile(
    '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069'
    '\ud800-\udfff]')
_SURROGATE = re.compile('[\ud800-\udfff]')
_FORMULA = ('=', '+', '-', '@', '\t', '\r')


def printable(text: str) -> str:
  r"""The text with what a terminal would obey written out, as `\x1b`."""
  return _UNPRINTABLE.sub(
      lambda match: match[0].encode('unicode_escape').decode(), text)


def encodable(value: Any) -> Any:
  """A JSON value in which U+FFFD stands for every lone surrogate."""
  if isinstance(value, str):
    return _SURROGATE.sub('\ufffd', value)
  if isinstance(value, dict):
    return {encodable(key): encodable(part) for key, part in value.items()}
  if isinstance(value, list):
    return [encodable(part) for part in value]
  return value


def csv_cell(value: Any) -> Any:
  """A cell that no spreadsheet takes for a formula.

  Text that begins with = + - @, a tab or a carriage return gets an apostrophe
  in front, which spreadsheets do not show. Text that is a number, and whatever
  is no text, stays as it is.
  """
  if not isinstance(value, str):
    return value
  value = encodable(value)
  if value.startswith(_FORMULA) and not _is_number(value):
    return f"'{value}"
  return value


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


class PrintableStream:
  """A text stream through which no escape sequence passes.

  Args:
    stream: where the text goes. A character that its encoding lacks is written
      out too.
  """

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> int:
    """Writes the text, made printable."""
    shown = printable(text)
    try:
      self._stream.write(shown)
    except UnicodeEncodeError:
      encoding = self._stream.encoding
      self._stream.write(
          shown.encode(encoding, 'backslashreplace').decode(encoding))
    return len(text)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)
