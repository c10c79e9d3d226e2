"""Imports point only downward: the picture in WORKSPACE.md, kept true."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Level of each room: a module, or a package with all that is in it.
LEVELS = {
    'enn_ensembles': 0,
    'enn_ensembles.base': 0,
    'enn_ensembles.config_checks': 0,
    'enn_ensembles.nngp': 1,
    'enn_ensembles.networks': 1,
    'enn_ensembles.losses': 1,
    'enn_ensembles.metrics': 1,
    'enn_ensembles.ole': 1,
    'enn_ensembles.similarity': 1,
    'enn_ensembles.results': 1,
    'enn_ensembles.checkpoints': 1,
    'enn_ensembles.file_locks': 1,
    'enn_ensembles.heartbeats': 1,
    'enn_ensembles.preemption': 1,
    'enn_ensembles.problem_cache': 1,
    'enn_ensembles.problems': 2,
    'enn_ensembles.training': 2,
    'enn_ensembles.evaluation': 2,
    'enn_ensembles.ranking': 2,
    'enn_ensembles.leaderboard': 2,
    'enn_ensembles.comparison': 2,
    'enn_ensembles.report': 3,
    'enn_ensembles.claims': 3,
    'enn_ensembles.figures': 3,
    'enn_ensembles.problem_audit': 3,
    'enn_ensembles.problem_export': 3,
    'enn_ensembles.agents': 3,
    'enn_ensembles.sweeps': 4,
    'enn_ensembles.runner': 5,
    'enn_ensembles.benchmarking': 5,
    'enn_ensembles.ole_benchmark': 5,
    'enn_ensembles.sweep_status': 5,
    'experiments': 6,
}

JAX = {'jax', 'jaxlib', 'haiku', 'optax', 'chex'}

FILES = sorted([*ROOT.glob('enn_ensembles/**/*.py'),
                *ROOT.glob('experiments/**/*.py')])


def module_name(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in FILES}


def level(module):
  """The level of the module, or of the room that it is in."""
  room = '.'.join(module.split('.')[:2])
  room = 'experiments' if room.startswith('experiments') else room
  assert room in LEVELS, f'{module} has no level: give it one in LEVELS'
  return LEVELS[room]


def imports(path):
  """Dotted names of all that a file imports, wherever it does."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path} has a relative import'
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        found.add(name if name in MODULES else node.module)
  return found


def inner_imports(module):
  return sorted(imports(MODULES[module]) & set(MODULES) - {module})


@pytest.mark.parametrize('module', sorted(MODULES))
def test_imports_point_downward(module):
  for imported in inner_imports(module):
    assert level(imported) <= level(module), (
        f'{module} (L{level(module)}) imports {imported} (L{level(imported)})')


def test_no_cycles_within_a_level():
  done, path = set(), []

  def visit(module):
    assert module not in path, ' -> '.join([*path, module])
    if module not in done:
      path.append(module)
      for imported in inner_imports(module):
        visit(imported)
      path.pop()
      done.add(module)

  for module in MODULES:
    visit(module)


def test_an_agent_is_readable_alone():
  for module in MODULES:
    if module.startswith('enn_ensembles.agents.'):
      others = [name for name in inner_imports(module)
                if name.startswith('enn_ensembles.agents')]
      assert not others, f'{module} imports {others}'


def test_sweeps_do_no_computing():
  outside = {name.split('.')[0]
             for name in imports(MODULES['enn_ensembles.sweeps'])}
  assert not outside & (JAX | {'numpy'})


def test_reports_are_made_without_jax():
  # In a process of its own: what they import may import more.
  code = ('import sys; from enn_ensembles import claims, figures, report, '
          'results; '
          f'print(sorted({JAX!r} & set(sys.modules)))')
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                        capture_output=True, text=True)
  assert done.stdout.strip() == '[]'


def test_every_file_says_why_it_exists():
  for module, path in MODULES.items():
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text)), module
