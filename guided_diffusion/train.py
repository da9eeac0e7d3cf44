"""Train a diffusion model or a classifier to guide one: ``python -m guided_diffusion.train``."""

import sys

from guided_diffusion.cli.program import program

main = program("train")

if __name__ == "__main__":
    sys.exit(main())
