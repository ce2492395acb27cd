"""``python -m synthct``: the command line."""

from synthct.cli import app

if __name__ == "__main__":
    app(prog_name="synthct")
