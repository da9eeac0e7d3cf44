"""Measure what guidance does to a trained model: ``python -m guided_diffusion.evaluate checkpoint=PATH``."""

import sys

from guided_diffusion.cli.program import program

main = program("evaluate")

if __name__ == "__main__":
    sys.exit(main())
