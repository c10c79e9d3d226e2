"""Sweeps that are killed again and again, compared with an undisturbed one."""
