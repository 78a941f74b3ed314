"""`python -m vlmlens`: the command line without its console script."""

from vlmlens.cli import main

if __name__ == "__main__":
    main()
