"""Are deep ensembles empirical Bayes? Measured on members of real ensembles.

Loaiza-Ganem, Villecroze & Wang 2025, "Deep Ensembles Secretly Perform Empirical
Bayes" (arXiv 2501.17917): the prior of maximal marginal likelihood, if it is
not restricted, lies on the maximisers of the likelihood; it is then its own
posterior, and an ensemble of maximisers averages it exactly. `units` trains
ensembles and keeps what they say of the data, `measuring` weighs their members,
`verdicts` judges the claims by rules that it states, `drawing` makes pictures.
"""
