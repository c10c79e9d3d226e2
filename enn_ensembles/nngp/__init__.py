"""The exact Gaussian-process side: the NNGP kernel and its posterior.

float64 throughout, computed on the host by numpy and scipy: nothing here needs
compiling, and scipy's Cholesky works in place.
"""
