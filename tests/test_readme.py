"""What README.md shows is run as it stands there."""

import pathlib
import re
import subprocess
import sys

import pytest

from enn_ensembles import results

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / 'README.md').read_text()


def _own_agent() -> str:
  """The only Python block of the README that defines make_agent."""
  blocks = [block for block in re.findall(r'```python\n(.*?)```', README, re.S)
            if 'def make_agent' in block]
  assert len(blocks) == 1
  return blocks[0]


def test_own_agent_is_at_most_ten_lines():
  assert len(_own_agent().strip().splitlines()) <= 10


def test_own_agent_runs(tmp_path):
  agent = tmp_path / 'my_agent.py'
  agent.write_text(_own_agent())
  store = tmp_path / 'results'
  subprocess.run(
      [sys.executable, '-m', 'experiments.run_sweep',
       '--config=testbed_configs/quickstart.py', f'--results_dir={store}',
       f'--agent_module={agent}', '--data_ratio=1', '--noise_std=0.1',
       '--seed=0', '--num_enn_samples=200', '--num_workers=1'],
      cwd=ROOT, check=True, capture_output=True, timeout=300)
  (row,) = results.open_store(store).read_rows()
  assert row['agent'] == 'my_agent' and row['status'] == 'ok'
  # Bayesian linear regression knows part of a nearly linear function: better
  # than a single network (about 1e5), no better than the exact posterior (0).
  assert 0.01 < row['scores']['kl_estimate'] < 10.


@pytest.mark.parametrize('path', sorted(set(
    re.findall(r'\]\(([^)#:]+)\)', README))))
def test_links_lead_somewhere(path):
  assert (ROOT / path).exists()
