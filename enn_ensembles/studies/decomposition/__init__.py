"""Which uncertainty is whose? Measured where the truth of each part is known.

`definitions` checks the formulas on cases that everybody can work out; `parts`
trains agents and measures them, each part on its own: noise that depends on the
input against its truth, label noise and training-set size varied separately,
ways to make members one prediction, bagging, a mixture of experts, and attacks
(`attacks`). `verdicts` judges the claims by rules that it states, `drawing`
makes the pictures.
"""
