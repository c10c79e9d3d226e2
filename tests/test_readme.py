"""What README.md and docs show runs as it stands there, and links lead on."""

import pathlib
import re

import pytest

import enn_ensembles as ee
from enn_ensembles import sweeps

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', README, re.S)
PAGES = [ROOT / name for name in ('README.md', 'WORKSPACE.md', 'CHANGELOG.md',
                                  'CONTRIBUTING.md')]
PAGES += sorted((ROOT / 'docs').glob('*.md'))


def test_readme_is_short():
  assert len(README.splitlines()) <= 120


def test_the_five_lines_run(capsys):
  code, = (block for block in BLOCKS if 'load_problem' in block)
  exec(code, {})  # pylint: disable=exec-used
  assert "'kl_estimate': " in capsys.readouterr().out


# What the README says of them: the first is among the best agents, the others
# know more than the prior, which scores 0.88 there.
@pytest.mark.parametrize('part, largest_kl', [
    ('wide random network', 0.1), ('sklearn', 0.6), ('haiku', 0.8)])
def test_agents_of_the_readme_keep_the_rules_and_score(
    tmp_path, part, largest_kl):
  code, = (block for block in BLOCKS
           if 'def make_agent' in block and part in block)
  path = tmp_path / 'my_agent.py'
  path.write_text(code)
  agent = ee.make_agent(str(path))
  ee.check_agent(agent)
  problem = ee.load_problem('D10_l10_e0.1_s0')
  prior = ee.score(ee.make_agent('prior_only'), problem)['kl_estimate']
  assert 0. < ee.score(agent, problem, 300)['kl_estimate'] < largest_kl < prior


def test_commands_name_configs_that_exist():
  text = '\n'.join(page.read_text() for page in PAGES)
  names = set(re.findall(r'--config=([\w/.$-]+)', text))
  assert 'quickstart' in names
  for name in names:
    if '$' not in name:
      sweeps.find_config(ROOT / name if '/' in name else name)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  for path in re.findall(r'\]\(([^)#:]+)\)', page.read_text()):
    assert (page.parent / path).exists(), path
