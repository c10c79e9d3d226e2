"""Pictures of the study: tempering, training, evidence."""

from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import plots
from enn_ensembles.scoring import weighting
from enn_ensembles.studies.empirical_bayes import units

_ROW_INCHES = 3.1
_LARGE = 100.  # From such values on an axis is logarithmic.

_POWERS = {'uniform': 0., **{f'tempered_{power:g}': power
                             for power in weighting.TEMPERS}, 'posterior': 1.}


def pictures(ensembles: pd.DataFrame,
             weights: pd.DataFrame) -> dict[str, bytes]:
  """File name -> PNG; those of the testbed only where it was measured."""
  # None is no number: where digits stand alone the column has only None.
  ensembles, weights = (
      frame.assign(noise_std=frame['noise_std'].astype(float))
      for frame in (ensembles, weights))
  found = {'tempering.png': _tempering(weights)}
  if 'kl_estimate' in weights and weights['kl_estimate'].notna().any():
    found['training.png'] = _training(weights)
    found['evidence.png'] = _evidence(ensembles)
  return found


def _panels(table: pd.DataFrame) -> list[tuple[str, float]]:
  """(problem, noise_std) in order."""
  pairs = table[['problem', 'noise_std']].drop_duplicates()
  return list(pairs.itertuples(index=False, name=None))


def _of_panel(table: pd.DataFrame, problem: str,
              noise_std: float) -> pd.DataFrame:
  levels = table['noise_std']
  same = levels.isna() if np.isnan(noise_std) else levels == noise_std
  return table[(table['problem'] == problem) & same]


def _title(problem: str, noise_std: float) -> str:
  return problem if np.isnan(noise_std) else f'{problem}, ε = {noise_std:g}'


def _grid(num_panels: int) -> tuple[Any, list[Any]]:
  columns = min(3, num_panels)
  rows = -(-num_panels // columns)
  figure = plots.make_canvas(4. * columns, _ROW_INCHES * rows)
  axes = figure.subplots(rows, columns, squeeze=False).ravel()
  for unused in axes[num_panels:]:
    unused.axis('off')
  return figure, list(axes[:num_panels])


def _set_steps(axes: Any, table: pd.DataFrame) -> None:
  """An axis of steps, from 0 on."""
  axes.set_xscale('symlog', linthresh=10)
  axes.set_xlim(-1, 1.4 * table['steps'].max())


def _colours() -> dict[str, str]:
  return dict(zip(units.KINDS, plots.WONG))


def _end(figure: Any, axes: list[Any]) -> bytes:
  handles, labels = axes[0].get_legend_handles_labels()
  columns = min(3, len(axes))  # A panel is as wide as one label.
  rows = -(-len(labels) // columns)
  figure.set_figheight(figure.get_figheight() + 0.2 * rows + 0.2)
  figure.legend(handles, labels, loc='outside lower center', fontsize=8,
                ncols=columns, frameon=False)
  return plots.to_png(figure)


def _tempering(weights: pd.DataFrame) -> bytes:
  """Test NLL against the power.

  After the usual steps if measured there, and on images after all steps too.
  """
  steps = weights['steps']
  usual = (units.USUAL_STEPS if (steps == units.USUAL_STEPS).any()
           else steps.max())
  kept = weights[weights['num_members'] == weights['num_members'].max()]
  panels = [(panel, shown) for panel in _panels(kept)
            for shown in ([usual, steps.max()] if np.isnan(panel[1])
                          and steps.max() > usual else [usual])]
  figure, axes = _grid(len(panels))
  for one, (panel, shown) in zip(axes, panels):
    of_panel = _of_panel(kept[kept['steps'] == shown], *panel)
    for kind, group in of_panel.groupby('kind', sort=False):
      colour = _colours()[kind]
      nll = group.groupby('rule')['nll'].agg('mean')
      one.plot(range(len(_POWERS)), [nll[rule] for rule in _POWERS], 'o-',
               color=colour, markersize=4, label=f'{kind}: likelihood^β')
      one.axhline(nll['stacking'], color=colour, linestyle='--', linewidth=1,
                  label=f'{kind}: stacking')
      one.axhline(nll['single'], color=colour, linestyle=':', linewidth=1,
                  label=f'{kind}: mean single member')
    one.set_xticks(range(len(_POWERS)),
                   [f'{power:g}' for power in _POWERS.values()], fontsize=7)
    low, high = one.dataLim.intervaly
    if 0 < 10. * low < high:
      one.set_yscale('log')
    plots.style_axes(one, _title(*panel), 'β: 0 uniform, 1 posterior',
                     f'test NLL after {shown} steps, nats')
  return _end(figure, axes)


def _training(weights: pd.DataFrame) -> bytes:
  """KL of labels to the exact posterior's along training."""
  kept = weights.loc[
      (weights['num_members'] == weights['num_members'].max())
      & weights['kl_labels'].notna()]
  panels = _panels(kept)
  figure, axes = _grid(len(panels))
  for one, panel in zip(axes, panels):
    for kind, group in _of_panel(kept, *panel).groupby('kind', sort=False):
      for rule, style in (('uniform', 'o-'), ('posterior', 's--')):
        curve = group[group['rule'] == rule].groupby('steps')[
            'kl_labels'].agg('mean')
        one.plot(curve.index, curve, style, color=_colours()[kind],
                 markersize=4, linewidth=1.3, label=f'{kind}: {rule} weights')
    _set_steps(one, kept)
    one.set_yscale('log')
    plots.style_axes(one, _title(*panel), 'steps',
                     'KL to exact predictive, nats')
  return _end(figure, axes)


def _evidence(ensembles: pd.DataFrame) -> bytes:
  """Log evidence of the learnt prior less the exact one, along training."""
  kept = ensembles[
      (ensembles['num_members'] == ensembles['num_members'].max())
      & ensembles['nngp_log_marginal_likelihood'].notna()]
  panels = _panels(kept)
  figure, axes = _grid(len(panels))
  for one, panel in zip(axes, panels):
    of_panel = _of_panel(kept, *panel)
    for kind, group in of_panel.groupby('kind', sort=False):
      excess = (group['evidence_learnt']
                - group['nngp_log_marginal_likelihood'])
      curve = excess.groupby(group['steps']).agg('mean')
      one.plot(curve.index, curve, 'o-', color=_colours()[kind], markersize=4,
               label=f'{kind}: learnt point masses')
    bound = (of_panel['evidence_learnt'] + of_panel['distance_best']
             - of_panel['nngp_log_marginal_likelihood']).mean()
    one.axhline(bound, color='black', linestyle=':', linewidth=1,
                label='data interpolated')
    one.axhline(0., color='grey', linewidth=0.8)
    _set_steps(one, kept)
    if max(map(abs, one.get_ylim())) > _LARGE:
      one.set_yscale('symlog', linthresh=10)
    plots.style_axes(one, _title(*panel), 'steps',
                     "log evidence less the NNGP's, nats")
  return _end(figure, axes)
