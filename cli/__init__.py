"""The command line of hfgrow."""
