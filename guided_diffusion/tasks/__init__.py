"""What the programs do: apart from them, because all that this imports takes seconds."""

import pytorch_lightning  # noqa: F401  (sets the level of its log when it is imported)

from guided_diffusion.allocator import keep_freed_memory
from guided_diffusion.programs import quiet

quiet()
keep_freed_memory()
