"""What torchmetrics lacks."""

from guided_diffusion.evaluation.judge import Judge, JudgePair, JudgeSource

__all__ = ["Judge", "JudgePair", "JudgeSource"]
