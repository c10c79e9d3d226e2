"""How predictions become scores: pure formulas, and the table of all scores."""
