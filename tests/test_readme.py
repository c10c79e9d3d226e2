"""What README.md and docs show runs as it stands there, and links lead on."""

import ast
import functools
import pathlib
import re

import pytest

import enn_ensembles as ee
from enn_ensembles import commands
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


@functools.cache
def flags_of(module):
  """Flags that a command defines, or a module of its folder that it imports."""
  path = ROOT / 'experiments' / f'{module}.py'
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and node.func.attr.startswith('DEFINE_')):
      assert isinstance(node.args[0], ast.Constant), module
      found.add(node.args[0].value)
    elif isinstance(node, ast.ImportFrom) and node.module == 'experiments':
      for alias in node.names:
        found |= flags_of(alias.name)
  return found


def commands_in(text):
  """(module, flags) of every command in blocks and spans of code."""
  code = re.findall(r'```bash\n(.*?)```', text, re.S)
  code += [re.sub(r'\s+', ' ', span) for span in
           re.findall(r'(?<!`)`([^`]+)`(?!`)', re.sub(r'```.*?```', '', text,
                                                      flags=re.S))]
  lines = '\n'.join(code).replace('\\\n', ' ')
  for name, values in re.findall(r'for (\w+) in (.*?);', lines):
    # The first turn of a loop; others have the same flags.
    lines = lines.replace(f'${name}', values.split()[0])
  for line in lines.splitlines():
    for kind, name, rest in re.findall(
        r'(python -m experiments\.|enn-ensembles )(\w+)([^#;&|\n]*)', line):
      if kind == 'enn-ensembles ':
        name = commands.COMMANDS.get(name, f'enn-ensembles {name}')
      yield name, re.findall(r'(?<!\S)\[?--(\w+)', rest)


def wrong_commands(text):
  """What commands in a text name that is not there."""
  modules = {path.stem for path in (ROOT / 'experiments').glob('*.py')}
  wrong = []
  for module, flags in commands_in(text):
    if module in modules:
      known = flags_of(module) | {'help'}
      wrong += [f'{module} --{flag}' for flag in flags if flag not in known]
    else:
      wrong.append(module)
  return wrong


def test_commands_and_their_flags_exist():
  found = [command for page in PAGES
           for command in commands_in(page.read_text())]
  assert len(found) > 40 and sum(len(flags) for _, flags in found) > 80
  assert {page.name: wrong for page in PAGES
          if (wrong := wrong_commands(page.read_text()))} == {}


@pytest.mark.parametrize('text, wrong', [
    ('`python -m experiments.run_sweeps`', ['run_sweeps']),
    ('```bash\npython -m experiments.status \\\n  --results=DIR  # --no\n```',
     ['status --results']),
    ('`enn-ensembles board\n--rank_by=kl`', ['build_leaderboard --rank_by']),
    ('`enn-ensembles kill_test`', ['enn-ensembles kill_test']),
    ('`enn-ensembles run --config=paper --solver=dense --help`', [])])
def test_a_wrong_command_is_found(text, wrong):
  assert wrong_commands(text) == wrong


def test_flags_that_stand_alone_exist():
  known = {flag for path in (ROOT / 'experiments').glob('*.py')
           for flag in flags_of(path.stem)}
  known |= {flag for path in (ROOT / 'scripts').glob('*.sh')
            for flag in re.findall(r'--(\w+)', path.read_text())}
  for page in PAGES:
    spans = re.findall(r'(?<!`)`(--[^`]+)`(?!`)', page.read_text())
    used = {flag for span in spans for flag in re.findall(r'--(\w+)', span)}
    assert used <= known, (page.name, used - known)


def test_all_agents_and_public_names_are_in_their_tables():
  text = (ROOT / 'docs' / 'agents_and_api.md').read_text()
  agents, rest = text.split('## The contract')
  named = set(re.findall(r'`([a-z_]+)`', ' '.join(
      line.split('|')[1] for line in agents.splitlines()
      if line.startswith('| `'))))
  assert named == set(ee.agent_names())
  names = rest.split('## Public names')[1]
  assert set(ee.__all__) == {
      name for name in ee.__all__ if f'`{name}`' in names
      or f'`{name}(' in names}


def test_papers_of_agents_and_studies_are_cited():
  number = re.compile(r'(?<![\d.])\d{4}\.\d{5}(?!\d)')
  named = set()
  for folder in ('agents', 'studies'):
    for path in (ROOT / 'enn_ensembles' / folder).rglob('*.py'):
      named |= set(number.findall(path.read_text()))
  for page in PAGES:
    named |= set(re.findall(r'arXiv[ :](\d{4}\.\d{5})', page.read_text()))
  cited = number.findall((ROOT / 'CITATION.cff').read_text())
  assert named <= set(cited), named - set(cited)
  assert len(cited) == len(set(cited))
