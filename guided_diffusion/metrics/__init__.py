"""What torchmetrics lacks."""

from guided_diffusion.metrics.judge import Judge, JudgePair, JudgeSource

__all__ = ["Judge", "JudgePair", "JudgeSource"]
