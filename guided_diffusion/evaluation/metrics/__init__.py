"""The measures of samples, and their confidence intervals."""
