"""Plots and grids of samples, as figures and files."""
