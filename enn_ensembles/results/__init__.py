"""What a row is, and how rows reach the disk and come back; no jax."""

from enn_ensembles.results.schema import check_row
from enn_ensembles.results.schema import DEFAULT_KERNEL
from enn_ensembles.results.schema import Field
from enn_ensembles.results.schema import PROBLEM_FIELDS
from enn_ensembles.results.schema import PROJECT
from enn_ensembles.results.schema import PROTOCOL_FIELDS
from enn_ensembles.results.schema import Row
from enn_ensembles.results.schema import ROW_SCHEMA
from enn_ensembles.results.schema import same_value
from enn_ensembles.results.schema import SCHEMA_VERSION
from enn_ensembles.results.schema import SCORE_FIELDS
from enn_ensembles.results.schema import TIMING_FIELDS
from enn_ensembles.results.store import merge_units
from enn_ensembles.results.store import open_store
from enn_ensembles.results.store import ResultsStore
from enn_ensembles.results.store import Unit

__all__ = [
    'DEFAULT_KERNEL',
    'Field',
    'PROBLEM_FIELDS',
    'PROJECT',
    'PROTOCOL_FIELDS',
    'ROW_SCHEMA',
    'ResultsStore',
    'Row',
    'SCHEMA_VERSION',
    'SCORE_FIELDS',
    'TIMING_FIELDS',
    'Unit',
    'check_row',
    'merge_units',
    'open_store',
    'same_value',
]
