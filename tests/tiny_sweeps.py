"""Small sweep configs and work units, for the tests of sweeps."""

from enn_ensembles import sweeps
from enn_ensembles.problems.kinds import nngp

GOOD = {
    'INPUT_DIM': [10, 100], 'DATA_RATIO': [1, 10], 'NOISE_STD': [1., 0.1],
    'SEED': [1, 0],
    'AGENTS': [{'agent': 'ensemble', 'num_ensemble': [1, 3],
                'prior_scale': [0., 1.]},
               {'agent': 'mc_dropout', 'hidden_sizes': (5,)}]}


def write_config(folder, **changes):
  """A config file; a change to None leaves the name out."""
  path = folder / 'config.py'
  path.write_text(''.join(f'{name} = {value!r}\n'
                          for name, value in {**GOOD, **changes}.items()
                          if value is not None))
  return path


def make_config(folder, **changes):
  """The config of such a file."""
  return sweeps.load_config(write_config(folder, **changes))


def make_unit(input_dim=10, data_ratio=1., noise_stds=(0.1,), seeds=(0,),
              agent='a', agent_config=None, **fields):
  """A work unit that nobody runs; fields of the family or of the unit."""
  family = {name: fields.pop(name)
            for name in ('reference', 'kernel', 'solver') if name in fields}
  return sweeps.WorkUnit(
      agent, agent, agent_config or {},
      nngp.NngpFamily(input_dim, data_ratio, tuple(noise_stds), **family),
      tuple(seeds), **fields)


def make_training_unit(**settings):
  """A work unit of a tiny ensemble, with three seeds and two noise levels."""
  config = sweeps.SweepConfig(
      'test', (0, 1, 2),
      ({'agent': 'ensemble', 'num_ensemble': 2, 'hidden_sizes': (4,),
        **settings},),
      {'input_dim': (2,), 'data_ratio': (2.,), 'noise_std': (0.1, 1.)})
  return sweeps.expand(config)[0]


def cell(unit, noise_std):
  """The cell of one of a unit's noise levels."""
  found, = (c for c in unit.family.cells if c['noise_std'] == noise_std)
  return found


def row_id(unit, noise_std, seed, selection='none'):
  """The name of the row of one of a unit's noise levels."""
  return unit.row_id(cell(unit, noise_std), seed, selection)
