"""The program, as `python -m hfgrow`."""

from importlib import import_module

if __name__ == "__main__":
    import_module("hfgrow_cli.main").main()
