"""Oleksiienko & Iosifidis 2022, "Layer Ensembles" (arXiv 2210.04882)."""
