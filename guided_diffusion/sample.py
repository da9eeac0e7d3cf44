"""Sample from a trained diffusion model: ``python -m guided_diffusion.sample checkpoint=PATH labels=[3,7]``."""

import sys

from guided_diffusion.cli.program import program

main = program("sample")

if __name__ == "__main__":
    sys.exit(main())
