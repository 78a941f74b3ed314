"""`python -m vlmlens`: the command line without its console script."""

import os
import sys

if __name__ == "__main__":
    # Python puts the working folder first on the path. Nothing that happens to lie there is for us,
    # unless vlmlens itself does.
    first = sys.path[0] if sys.path and not sys.flags.safe_path else None
    if first in ("", os.getcwd()) and not os.path.isdir(os.path.join(first, "vlmlens")):  # noqa: PTH109, PTH112, PTH118
        del sys.path[0]

    from vlmlens.cli import main

    main()
