"""Export a model as one safetensors file: ``python -m guided_diffusion.export checkpoint=PATH output=FILE``."""

import sys

from guided_diffusion.cli.program import program

main = program("export")

if __name__ == "__main__":
    sys.exit(main())
