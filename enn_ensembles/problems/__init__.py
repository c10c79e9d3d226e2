"""Problems: what agents learn from, and what they are scored against."""

from enn_ensembles.problems.brought import problem_from_data
from enn_ensembles.problems.draws import agent_key
from enn_ensembles.problems.draws import evaluation_key
from enn_ensembles.problems.ground_truth import make_problems
from enn_ensembles.problems.nngp_regression import GroundTruth
from enn_ensembles.problems.nngp_regression import JOINT_TAU
from enn_ensembles.problems.nngp_regression import Problem
from enn_ensembles.problems.nngp_regression import ProblemConfig
from enn_ensembles.problems.solvers import choose_solver
from enn_ensembles.problems.solvers import dense_memory_mb
from enn_ensembles.problems.solvers import SOLVER_MEMORY_MB
from enn_ensembles.problems.solvers import SOLVERS

__all__ = [
    'GroundTruth',
    'JOINT_TAU',
    'Problem',
    'ProblemConfig',
    'SOLVERS',
    'SOLVER_MEMORY_MB',
    'agent_key',
    'choose_solver',
    'dense_memory_mb',
    'evaluation_key',
    'make_problems',
    'problem_from_data',
]
