"""Tables as CSV that gives the same values back."""

import numpy as np
import pytest

from enn_ensembles.report import csv_files

_ROWS = [{'kl': 0.1, 'agent': 'map', 'num': 3},
         {'kl': np.float64('inf'), 'note': '=1', 'agent': None}]


@pytest.mark.parametrize('names, text', [
    (None, "kl,agent,num,note\n0.1,map,3,\ninf,,,'=1\n"),
    (('num', 'kl'), 'num,kl\n3,0.1\n,inf\n')])
def test_dicts_are_lines_and_what_one_lacks_is_empty(names, text):
  assert csv_files.dicts_text(_ROWS, names) == text
