"""A research framework for guided diffusion."""
