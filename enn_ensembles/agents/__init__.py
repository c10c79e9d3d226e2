"""The agents: one file each, readable alone; found by their file names.

An agent file defines `make_agent(config) -> Agent`, where config is a frozen
dataclass annotated in that signature. A user-defined file, outside the package,
may do without a config: `make_agent() -> Agent`.

A file of the package whose agent trains no network with the package's loop may
say what it costs: `count_operations(config, workload)` gives the operations on
the problems of a `training.flops.Workload` as a float64 product counts them,
two per multiply-add. A float32 product counts half of that, since it takes half
the time. `sweeps.cost_model` divides them by the speed of a core.

A file of the package whose agent cannot serve every problem may say so before
any work: `check_prior(prior)` raises a ValueError.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
import sys
import typing
from typing import Any
from typing import NamedTuple

from enn_ensembles import checks
from enn_ensembles.machine import files

# What rows of predictions that somebody brings have for an agent.
BROUGHT = 'brought'


class AgentModule(NamedTuple):
  """An agent file.

  Attributes:
    name: its file name without the ending.
    config_class: dataclass of its settings; None if it has none.
    make_agent: config -> Agent, or () -> Agent without a config_class.
    count_operations: (config, `training.flops.Workload`) -> operations; None
      where the file says nothing of them.
    check_prior: raises a ValueError where the agent cannot serve a problem of
      which this `PriorKnowledge` is had; None where the file has none.
  """
  name: str
  config_class: type | None
  make_agent: Callable[..., Any]
  count_operations: Callable[..., float] | None = None
  check_prior: Callable[[Any], None] | None = None


def agent_names() -> list[str]:
  """The names of all agents of the package, sorted."""
  return list(_agent_names())


@functools.cache  # Every unit asks, and each time the folder would be listed.
def _agent_names() -> tuple[str, ...]:
  return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_agent(name_or_path: str) -> AgentModule:
  """Loads an agent by its name, or from a Python file.

  Args:
    name_or_path: one of `agent_names()`, or a path that ends in .py.

  Raises:
    ValueError: there is no such agent or file, it cannot be imported, or it
      does not define make_agent as it must.
  """
  if not isinstance(name_or_path, str):
    raise ValueError('agent must be the name of an agent, or the path of a '
                     f'Python file as text, got {name_or_path!r}.')
  if name_or_path.endswith('.py'):
    return _load_file(pathlib.Path(name_or_path))
  if name_or_path not in agent_names():
    raise ValueError(f'agent must be one of {", ".join(agent_names())}; got '
                     f'{name_or_path!r}.')
  module = importlib.import_module(f'{__name__}.{name_or_path}')
  return _inspect_module(name_or_path, module)


def _load_file(path: pathlib.Path) -> AgentModule:
  if not files.is_file(path):
    raise ValueError(f'agent_module must be a Python file, got {str(path)!r}, '
                     f'{files.why_no_file(path)}.')
  if path.stem in (*agent_names(), BROUGHT):
    raise ValueError(f'agent_module {str(path)!r} has the name of an agent of '
                     'the package; rename the file.')
  module_name = f'enn_ensembles_agent_{path.stem}'
  spec = importlib.util.spec_from_file_location(module_name, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[module_name] = module
  try:
    # Not by the loader, which takes an old compiled file for this one if it was
    # written within the same second.
    exec(compile(path.read_bytes(), str(path), 'exec'), module.__dict__)
  except BaseException as error:  # Whatever a file may raise.
    sys.modules.pop(module_name, None)
    if isinstance(error, KeyboardInterrupt):  # Imports may take long.
      raise
    raise ValueError(f'agent_module {str(path)!r} cannot be imported: '
                     f'{checks.error_text(error)}') from error
  return _inspect_module(path.stem, module)


def _inspect_module(name: str, module: Any) -> AgentModule:
  """Reads the config class off make_agent's signature."""
  make_agent = getattr(module, 'make_agent', None)
  if not callable(make_agent):
    raise ValueError(
        f'agent {name!r} must define make_agent(config), got none.')
  says = [getattr(module, part, None)
          for part in ('count_operations', 'check_prior')]
  try:
    first, *others = inspect.signature(make_agent).parameters.values()
  except ValueError:  # No parameters, or none that Python knows.
    return AgentModule(name, None, make_agent, *says)
  for other in others:
    if other.default is other.empty and other.kind not in (
        other.VAR_POSITIONAL, other.VAR_KEYWORD):
      raise ValueError(f'make_agent of agent {name!r} must take its config '
                       f'alone, got another argument, {other.name}.')
  try:
    config_class = typing.get_type_hints(make_agent).get(first.name)
  except Exception as error:  # An annotation may be any text.
    raise ValueError(f'make_agent of agent {name!r} must annotate its argument '
                     f'with a dataclass, got {first}: '
                     f'{checks.error_text(error)}') from error
  if not dataclasses.is_dataclass(config_class):
    raise ValueError(f'make_agent of agent {name!r} must annotate its argument '
                     f'with a dataclass, got {config_class!r}.')
  return AgentModule(name, config_class, make_agent, *says)


def make_config(agent: AgentModule, settings: Mapping[str, Any]) -> Any:
  """The agent's config from some of its settings; the others are defaults.

  Raises:
    ValueError: a setting is unknown, is missing and has no default, or its
      value is not allowed.
  """
  fields = {} if agent.config_class is None else {
      field.name: field for field in dataclasses.fields(agent.config_class)}
  for name in settings:
    if name not in fields:
      raise ValueError(
          f'agent {agent.name!r} has no setting {name!r}; allowed are '
          f'{", ".join(fields) or "none"}.')
  if agent.config_class is None:
    return None
  for name, field in fields.items():
    if (field.default is field.default_factory is dataclasses.MISSING
        and field.init and name not in settings):
      raise ValueError(f'agent {agent.name!r} must be given {name}, which has '
                       'no default.')
  try:
    return agent.config_class(**settings)
  except ValueError as error:
    raise ValueError(f'agent {agent.name!r}: {error}') from error
  except Exception as error:  # Whatever a class of somebody's file may raise.
    raise ValueError(f'the config of agent {agent.name!r} raised '
                     f'{checks.error_text(error)}') from error


def make_agent(agent: AgentModule, config: Any) -> Any:
  """The agent itself, an `enn_ensembles.base.Agent`."""
  return agent.make_agent() if config is None else agent.make_agent(config)


def from_settings(agent: AgentModule | str, settings: Mapping[str, Any]) -> Any:
  """The agent that a file, or a name or path of one, gives for its settings.

  Raises:
    ValueError: there is no such agent, or a setting is not as it must be.
  """
  module = agent if isinstance(agent, AgentModule) else load_agent(agent)
  return make_agent(module, make_config(module, settings))
