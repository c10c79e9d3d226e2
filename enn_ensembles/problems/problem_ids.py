"""From the readable name of an NNGP problem back to its config."""

import re

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import nngp_regression

_NUMBER = r'[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?'
_PATTERN = re.compile(
    rf'D(?P<input_dim>[0-9]+)_l(?P<data_ratio>{_NUMBER})'
    rf'_e(?P<noise_std>{_NUMBER})_s(?P<seed>[0-9]+)'
    r'(?:_(?P<reference>[a-z0-9]+))?')


def parse_problem_id(problem_id: str,
                     kernel: str = 'relu2') -> nngp_regression.ProblemConfig:
  """The config of a problem, from a name such as 'D10_l1_e0.1_s0'.

  Args:
    problem_id: as `ProblemConfig.problem_id` gives it; the reference at its end
      may be left out and is then 'bayes'.
    kernel: prior of the problem; a name holds a hash of it only.

  Raises:
    ValueError: it is no such name, or a value in it is not allowed.
  """
  found = _PATTERN.fullmatch(problem_id)
  if found is None or found['reference'] not in (None, *posterior.REFERENCES):
    raise ValueError(
        "problem_id must be like 'D10_l1_e0.1_s0' or 'D10_l1_e0.1_s0_bayes' "
        '(input_dim, data_ratio, noise_std, seed, and one of '
        f'{", ".join(posterior.REFERENCES)}), got {problem_id!r}.')
  return nngp_regression.ProblemConfig(
      int(found['input_dim']), float(found['data_ratio']),
      float(found['noise_std']), int(found['seed']),
      found['reference'] or 'bayes', kernels.KernelConfig.from_name(kernel))
