"""Evaluation: draw samples at every guidance scale, measure and plot them, and write a report."""
