"""The verdicts of the study as markdown."""

import pandas as pd

from enn_ensembles.report import text
from enn_ensembles.report import text_tables
from enn_ensembles.scoring import table
from enn_ensembles.studies.batch_ensemble import published


def _with_interval(line: pd.Series, name: str) -> str:
  low, high = line[f'{name}_low'], line[f'{name}_high']
  return f'{text.short_number(line[name])} {text.interval(low, high)}'


def format_verdicts(verdicts: pd.DataFrame, claimed: bool) -> str:
  """One table of what the study claims, or of the other methods.

  Verdicts of single OOD sets are in verdicts.csv only.

  Args:
    verdicts: of `measures.verdict_table`.
    claimed: whether it is BatchEnsemble's.
  """
  own = verdicts[(verdicts['is_claimed'] == claimed) & (verdicts['set'] == '')]
  return text_tables.markdown(
      ('data set', 'setting', 'score', 'minus one network',
       'deep ensemble minus one network', 'share', 'like one network?'),
      ((line['data_set'], line['setting'],
        table.SCORES[line['score']].label,
        _with_interval(line, 'difference'), _with_interval(line, 'gain'),
        text.short_number(line['share']),
        f'**{line["verdict"]}**: {line["reason"]}')
       for _, line in own.iterrows()))


def format_diversity(diversity: pd.DataFrame) -> str:
  """Mutual information, disagreement and similarities of members."""
  names = list(dict.fromkeys(diversity['score']))
  pivot = {}
  for _, line in diversity.iterrows():
    pivot.setdefault((line['data_set'], line['setting']), {})[
        line['score']] = text.short_number(line['mean'])
  return text_tables.markdown(
      ('data set', 'setting', *(table.SCORES[name].label for name in names)),
      ((*key, *(found.get(name, '-') for name in names))
       for key, found in pivot.items()))


def format_best(best: pd.DataFrame) -> str:
  """Which setting is best on what."""
  return text_tables.markdown(
      ('data set', 'score', 'best mean', 'value', 'not told apart from it'),
      ((line['data_set'], table.SCORES[line['score']].label, line['best'],
        f'{text.short_number(line["mean"])} '
        f'{text.interval(line["low"], line["high"])}',
        line['not_told_apart'] or '-') for _, line in best.iterrows()))


def format_published(means: pd.DataFrame) -> str:
  """The study's own numbers, of `published.table`."""
  return text_tables.markdown(
      ('data set', 'score', 'one network', 'BatchEnsemble', 'deep ensemble',
       'each may be off by', 'share', 'like one network?'),
      ((line['data_set'], table.SCORES[line['score']].label,
        *(f'{line[name]:g}' for name in ('one', 'batch', 'deep', 'error')),
        text.short_number(line['share']), f'**{line["verdict"]}**')
       for _, line in means.iterrows()))


def format_page(verdicts: pd.DataFrame, diversity: pd.DataFrame,
                best: pd.DataFrame) -> str:
  """verdicts.md: all tables with what they mean."""
  parts = ['# Is BatchEnsemble a single model?', _METHOD]
  if len(verdicts):
    parts += ['## The claim: BatchEnsemble behaves like one network',
              format_verdicts(verdicts, claimed=True),
              '## The same question of other methods',
              format_verdicts(verdicts, claimed=False)]
  parts += ["## The study's own numbers by the same rule", _PUBLISHED,
            format_published(published.table())]
  parts += ['## How alike the members are', format_diversity(diversity),
            '## Which is best on what', format_best(best)]
  return '\n\n'.join(part.rstrip('\n') for part in parts) + '\n'


_PUBLISHED = '''
Means read off the plots of the study's public code; in place of intervals over
seeds stands how far each number may be off by reading and rounding.
'''.strip()

_METHOD = '''
Zamyatin, Indri, Malhotra & Gärtner, arXiv 2601.16936. Differences are paired by
seed, with Student's t 95 % intervals over seeds. "Reproduced" means that two
one-sided tests at 5 % show the difference from one network to be within a third
of that of the deep ensemble of as many members; "not reproduced", that it is
decided to be outside; where the deep ensemble's own difference is not decided,
nothing can be. The share is the one difference over the other. Verdicts are not
corrected for their number.
'''.strip()
