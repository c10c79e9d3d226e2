"""Experiments of published papers, a folder each."""
