"""Checks of constructor arguments."""


def check_positive(**values: int) -> None:
    """Raise ``ValueError`` that names the first of the values that is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
