"""Growths of released models, as steps for `hfgrow apply`."""
