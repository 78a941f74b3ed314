"""The checks, one module each, with a function `check` that is given a `Trial`.

What all of them import is imported here, before their time begins to count.
"""

import scripts.gpu_check.checkpoint  # noqa: F401
import vlmlens_plugins.extract.activations  # noqa: F401
