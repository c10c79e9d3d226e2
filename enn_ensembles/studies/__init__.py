"""Experiments of published papers, a folder each; files are shared by them."""
