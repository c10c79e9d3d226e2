"""Imports point only downward: the picture in WORKSPACE.md, kept true."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Folders of the package from the ground up. A folder may import what stands
# before it, and no other. Single files stand in `enn_ensembles` itself.
ORDER = ('checks', 'machine', 'outputs', 'base', 'nngp', 'networks',
         'training', 'conformance', 'agents', 'scoring', 'results', 'problems',
         'report', 'sweeps', 'api', 'studies', 'enn_ensembles', 'commands',
         '__main__')
# Folders that know no jax: reports are made where it is not installed.
WITHOUT_JAX = ('results', 'report')
JAX = {'jax', 'jaxlib', 'haiku', 'optax', 'chex'}

MODULES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix(
        '.__init__'): path
    for folder in ('enn_ensembles', 'experiments')
    for path in ROOT.glob(f'{folder}/**/*.py')}


def room(module):
  """The folder, or the single file, that a module belongs to."""
  return module.split('.')[1] if '.' in module else module


def imports(module):
  """Dotted names of all that a module imports, wherever it does."""
  found = set()
  for node in ast.walk(ast.parse(MODULES[module].read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{module} has a relative import'
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        found.add(name if name in MODULES else node.module)
  return found


def inner_imports(module):
  return sorted(name for name in imports(module)
                if name in MODULES and name != module)


@pytest.mark.parametrize('module', sorted(MODULES))
def test_imports_point_downward(module):
  if module.startswith('experiments') or module == 'enn_ensembles':
    return  # They stand on top of everything.
  assert room(module) in ORDER, f'{module}: give its folder a place in ORDER'
  for imported in inner_imports(module):
    assert not imported.startswith('experiments'), (module, imported)
    assert ORDER.index(room(imported)) <= ORDER.index(room(module)), (
        f'{module} imports {imported}, which stands above it')


def test_no_cycles_within_a_folder():
  done, path = set(), []

  def visit(module):
    assert module not in path, ' -> '.join([*path, module])
    if module not in done:
      path.append(module)
      for imported in inner_imports(module):
        if not MODULES[imported].name == '__init__.py':
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


@pytest.mark.parametrize('folder', WITHOUT_JAX)
def test_folder_knows_no_jax(folder):
  # In a process of its own: what they import may import more.
  names = [name for name in MODULES if room(name) == folder]
  code = (f'import importlib, sys\n'
          f'for name in {names!r}: importlib.import_module(name)\n'
          f'print(sorted({JAX!r} & set(sys.modules)))')
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                        capture_output=True, text=True)
  assert done.stdout.strip() == '[]'


def test_every_file_says_why_it_exists():
  for module, path in MODULES.items():
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text)), module


@pytest.mark.parametrize('module', sorted(MODULES))
def test_a_file_has_one_topic(module):
  num_lines = len(MODULES[module].read_text().splitlines())
  assert num_lines <= 400, f'{module} has {num_lines} lines: split it'
