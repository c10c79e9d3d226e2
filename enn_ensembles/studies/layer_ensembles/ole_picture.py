"""Speed-up and memory of optimised layer ensembles against K, as a picture."""

from collections.abc import Sequence

from matplotlib import ticker

from enn_ensembles.report import plots
from enn_ensembles.studies.layer_ensembles import ole_benchmark

_PAPER_SPEEDUP = 19.

_COLOURS = {'ole': plots.WONG[0], 'moments': plots.WONG[1],
            'half': plots.WONG[2], 'mapped': plots.WONG[3],
            'one_program': plots.WONG[4], 'one_by_one': plots.WONG[7]}
_LABELS = {
    'one_by_one': 'one by one', 'mapped': 'one after the other in one program',
    'one_program': 'all at once, nothing shared', 'ole': 'OLE, all samples',
    'half': 'OLE, a random half of the samples', 'moments': 'exact moments'}
_MARKERS = {'ole': 'o', 'moments': 's', 'half': '^', 'mapped': 'v',
            'one_program': 'D', 'one_by_one': 'x'}


def make_picture(rows: Sequence[ole_benchmark.Row]) -> bytes:
  """Speed-up and memory against K, as PNG."""
  rows = sorted(rows, key=lambda row: row['num_options'])
  numbers = [row['num_options'] for row in rows]
  figure = plots.make_canvas(10.5, 5.2, layout=None)
  speed, memory = figure.subplots(1, 2)

  def beside(position: int) -> list[float]:
    # Ways of the same speed stay visible side by side.
    return [number + 0.05 * (position - 1.5) for number in numbers]

  for position, name in enumerate(ole_benchmark.TIMED[1:]):
    middle = [row[f'speedup_{name}'] for row in rows]
    speed.errorbar(
        beside(position), middle,
        [[m - row[f'speedup_{name}_low'] for m, row in zip(middle, rows)],
         [row[f'speedup_{name}_high'] - m for m, row in zip(middle, rows)]],
        color=_COLOURS[name], marker=_MARKERS[name], capsize=3,
        label=_LABELS[name])
  speed.plot(numbers, [row['speedup_by_flops'] for row in rows], '--',
             color='#999999', label='OLE, if only arithmetic counted')
  speed.axhline(_PAPER_SPEEDUP, color='black', linestyle=':', linewidth=1)
  speed.annotate(f'paper: up to {_PAPER_SPEEDUP:.0f}', (0, _PAPER_SPEEDUP),
                 xycoords=('axes fraction', 'data'), xytext=(4, 3),
                 textcoords='offset points', fontsize=8)
  speed.set_ylabel('speed-up over one by one')
  speed.set_title('Speed', fontsize=11)

  for position, name in enumerate(
      ('ole', 'half', 'moments', 'one_program', 'one_by_one')):
    memory.plot(beside(position),
                [row[f'memory_{name}_bytes'] / 2**20 for row in rows],
                color=_COLOURS[name], marker=_MARKERS[name],
                label=_LABELS[name])
  memory.set_ylabel('peak temporaries and output, MiB')
  memory.set_title('Memory', fontsize=11)

  for axes in (speed, memory):
    axes.set_yscale('log')
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(
        lambda value, _: f'{value:g}'))
    axes.set_xlabel('options per layer K')
    axes.set_xticks(numbers)
    axes.grid(True, which='major', color='#dddddd', linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, frameon=False, loc='upper center', ncols=2,
                bbox_to_anchor=(0.5, -0.13))
  first = rows[0]
  figure.suptitle(
      f'CNN of 4 layers with K options each, K\N{SUPERSCRIPT FOUR} samples, '
      f'{first["batch_size"]} images of {first["image_size"]} '
      f'\N{MULTIPLICATION SIGN} {first["image_size"]}, {first["dtype"]}, '
      f'{first["device"]}, {first["num_cores"]} core(s)', fontsize=9)
  figure.tight_layout()
  return plots.to_png(figure)
