"""Evaluation: samples of every scale are drawn, measured, plotted and reported."""
