"""Write the merged checkpoint: ``python -m vlmlens_plugins.demo.shortcut FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from vlmlens_plugins.demo.shortcut import merge


def main() -> None:
    """Merge into the folder named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("Use: python -m vlmlens_plugins.demo.shortcut FOLDER")
    try:
        merge(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
