"""Export a model as one safetensors file: ``python -m guided_diffusion.export checkpoint=PATH output=FILE``."""

from guided_diffusion.cli.export import main

if __name__ == "__main__":
    main()
