"""The fastest precision that the hardware supports."""


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
