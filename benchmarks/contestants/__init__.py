"""The contestants of ``time_to_quality.py``: our recipes, and two trainings that others describe."""
