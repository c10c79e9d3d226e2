"""What a row is, and how rows reach the disk and come back; no jax."""

from enn_ensembles.results.costs import COST_FIELDS
from enn_ensembles.results.costs import cost_of
from enn_ensembles.results.merging import merge_units
from enn_ensembles.results.opening import find_store
from enn_ensembles.results.opening import open_store
from enn_ensembles.results.row_ids import make_agent_id
from enn_ensembles.results.row_ids import make_row_id
from enn_ensembles.results.row_ids import RowIds
from enn_ensembles.results.scanning import done_row_ids
from enn_ensembles.results.scanning import done_statuses
from enn_ensembles.results.scanning import scan
from enn_ensembles.results.scanning import scan_rows
from enn_ensembles.results.schema import Cell
from enn_ensembles.results.schema import cell_names
from enn_ensembles.results.schema import cell_of
from enn_ensembles.results.schema import check_row
from enn_ensembles.results.schema import DEFAULT_KERNEL
from enn_ensembles.results.schema import Field
from enn_ensembles.results.schema import problem_of
from enn_ensembles.results.schema import ProblemKey
from enn_ensembles.results.schema import PROJECT
from enn_ensembles.results.schema import PROTOCOL_FIELDS
from enn_ensembles.results.schema import Row
from enn_ensembles.results.schema import ROW_SCHEMA
from enn_ensembles.results.schema import same_value
from enn_ensembles.results.schema import SCHEMA_VERSION
from enn_ensembles.results.schema import score_of
from enn_ensembles.results.schema import TIMING_FIELDS
from enn_ensembles.results.store import FOLDERS
from enn_ensembles.results.store import ResultsStore
from enn_ensembles.results.unit_files import Unit

__all__ = [
    'COST_FIELDS',
    'Cell',
    'DEFAULT_KERNEL',
    'FOLDERS',
    'Field',
    'PROJECT',
    'PROTOCOL_FIELDS',
    'ProblemKey',
    'ROW_SCHEMA',
    'ResultsStore',
    'Row',
    'RowIds',
    'SCHEMA_VERSION',
    'TIMING_FIELDS',
    'Unit',
    'cell_names',
    'cell_of',
    'check_row',
    'cost_of',
    'done_row_ids',
    'done_statuses',
    'find_store',
    'make_agent_id',
    'make_row_id',
    'merge_units',
    'open_store',
    'problem_of',
    'same_value',
    'scan',
    'scan_rows',
    'score_of',
]
