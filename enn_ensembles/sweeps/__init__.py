"""Sweeps: from a config to work units, and from those to rows."""

from enn_ensembles.sweeps.cost_model import Estimate
from enn_ensembles.sweeps.cost_model import estimate_ground_truth_seconds
from enn_ensembles.sweeps.cost_model import estimate_seconds
from enn_ensembles.sweeps.cost_model import estimate_training_seconds
from enn_ensembles.sweeps.shares import limit_inputs
from enn_ensembles.sweeps.shares import longest_first
from enn_ensembles.sweeps.shares import select
from enn_ensembles.sweeps.shares import split
from enn_ensembles.sweeps.sweep_config import config_names
from enn_ensembles.sweeps.sweep_config import find_config
from enn_ensembles.sweeps.sweep_config import load_config
from enn_ensembles.sweeps.sweep_config import override
from enn_ensembles.sweeps.sweep_config import SweepConfig
from enn_ensembles.sweeps.work_units import all_settings
from enn_ensembles.sweeps.work_units import expand
from enn_ensembles.sweeps.work_units import load_agent
from enn_ensembles.sweeps.work_units import make_label
from enn_ensembles.sweeps.work_units import narrow
from enn_ensembles.sweeps.work_units import SOURCE_FILE
from enn_ensembles.sweeps.work_units import WorkUnit

__all__ = [
    'Estimate',
    'SOURCE_FILE',
    'SweepConfig',
    'WorkUnit',
    'all_settings',
    'config_names',
    'estimate_ground_truth_seconds',
    'estimate_seconds',
    'estimate_training_seconds',
    'expand',
    'find_config',
    'limit_inputs',
    'load_agent',
    'load_config',
    'longest_first',
    'make_label',
    'narrow',
    'override',
    'select',
    'split',
]
