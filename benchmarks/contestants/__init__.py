"""The contestants of ``time_to_quality.py``: our recipes, and two trainings that others describe."""

from contestants.base import Contestant
from contestants.diffusers_example import diffusers_example
from contestants.ours import Ours
from contestants.teapearce import teapearce

CONTESTANTS: dict[str, Contestant] = {
    "ours": Ours("guided_mnist"),
    "ours_cfg": Ours("cfg_mnist"),
    "diffusers": diffusers_example(),
    "teapearce": teapearce(),
    "teapearce_64": teapearce(batch_size=64),
}
"""Each contestant by its name on the command line."""
