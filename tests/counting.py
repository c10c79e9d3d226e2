"""Work that is counted, not timed: a count is the same on a busy machine."""

import sys

from jax.extend import core

from enn_ensembles.training import flops


def num_calls(function):
  """Functions of Python and of C that are called by function(), all told."""
  num = 0

  def count(frame, event, argument):
    del frame, argument
    nonlocal num
    num += event in ('call', 'c_call')

  before = sys.getprofile()
  sys.setprofile(count)
  try:
    function()
  finally:
    sys.setprofile(before)
  return num


def num_elements(jaxpr, primitive):
  """How many numbers a primitive computes, e.g. 'log', loops included.

  Args:
    jaxpr: of `jax.make_jaxpr`; of loops it may have scans only.
    primitive: its name.
  """
  if isinstance(jaxpr, core.ClosedJaxpr):
    jaxpr = jaxpr.jaxpr
  total = 0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    assert name not in ('while', 'cond'), name
    if name == primitive:
      total += sum(variable.aval.size for variable in equation.outvars)
    inner = sum(num_elements(j, primitive)
                for j in flops.inner_programs(equation.params))
    total += inner * (equation.params['length'] if name == 'scan' else 1)
  return total
