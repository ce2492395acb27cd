"""``python -m synthct``: the command line."""

from synthct.cli.program import main

if __name__ == "__main__":
    main()
