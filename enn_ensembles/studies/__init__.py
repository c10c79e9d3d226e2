"""Experiments of published papers, a folder each; the files here are shared."""
