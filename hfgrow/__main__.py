"""The program, as `python -m hfgrow`."""

import sys
from importlib import import_module

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # The folder one works in, such as that of a model: a typer.py there is no part of us.
        del sys.path[0]
    import_module("hfgrow_cli.main").main()
