"""Command line of releases.

python -m scripts.release version 0.2.0   write the version into every distribution
python -m scripts.release build dist      build all sdists and wheels into a new folder; check them
python -m scripts.release check           whether all versions are in step
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.release.building import build, check
from scripts.release.versions import out_of_step, set_version, version


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version", help="write a version everywhere").add_argument("number")
    commands.add_parser("build", help="build and check everything").add_argument("out", type=Path)
    commands.add_parser("check", help="whether all versions are in step")
    given = parser.parse_args()
    if given.command == "version":
        for path in set_version(given.number):
            print(path)
    elif given.command == "build":
        files = build(given.out)
        check(files)
        print(f"{len(files)} files of version {version()} in {given.out}, as twine wants them")
    elif wrong := out_of_step():
        raise SystemExit("\n".join(wrong))
    else:
        print(f"everything is of version {version()}")


if __name__ == "__main__":
    main()
