"""docs/tutorial.ipynb runs, and is what scripts/make_tutorial.py writes."""

import importlib.util
import pathlib

import pytest

nbformat = pytest.importorskip('nbformat')
pytest.importorskip('nbclient')
pytest.importorskip('ipykernel')

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(name='script', scope='module')
def load_script():
  spec = importlib.util.spec_from_file_location(
      'make_tutorial', ROOT / 'scripts' / 'make_tutorial.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def read():
  return nbformat.read(ROOT / 'docs' / 'tutorial.ipynb', as_version=4)


def test_it_is_what_the_script_writes_with_outputs(script):
  notebook = read()
  nbformat.validate(notebook)
  assert [cell.source for cell in notebook.cells] == [
      cell.source for cell in script.make_notebook().cells]
  outputs = [output for cell in notebook.cells
             for output in cell.get('outputs', ())]
  assert any('image/png' in output.get('data', {}) for output in outputs)
  assert not any(output.output_type == 'error' for output in outputs)


@pytest.mark.slow
def test_it_runs(script, tmp_path, monkeypatch):
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  notebook = read()
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      cell.outputs = []
  script.run(notebook, tmp_path)  # Raises where a cell does.
  board = notebook.cells[-2].outputs[0]['data']['text/plain']
  assert all(name in board for name in ('linear', 'ensemble', 'exact_poster'))
