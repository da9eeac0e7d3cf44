"""The precisions that work, and the fastest one that the hardware supports."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")
"""The values of ``trainer.precision`` that train and sample well.

Weights in bfloat16 or float16 lose the small changes of the average, and times and noise levels most of their digits.
"""
SHORT = ("32", "bf16", "16", "64", "None")
"""The other values that are accepted: Lightning's short forms of these, and ``None`` for its default."""


def check_precision(precision: str | int | None) -> None:
    """Raise ``ValueError`` for a ``trainer.precision`` that spoils trainings or samples."""
    if str(precision) not in (*PRECISIONS, *SHORT):
        *others, last = PRECISIONS
        raise ValueError(f"trainer.precision must be {', '.join(others)} or {last}, got {precision}")


def fast_precision(accelerator: str) -> str:
    """Return ``bf16-mixed`` if the hardware multiplies bfloat16 natively, else ``32-true``.

    Configs call it as ``${fast_precision:auto}``.
    """
    import torch  # here, so that --help need not wait for it

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"
