"""What torchmetrics lacks."""

from guided_diffusion.metrics.judge import Judge, JudgeSource

__all__ = ["Judge", "JudgeSource"]
