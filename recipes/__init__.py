"""Training recipes of hfgrow, installed as `hfgrow_recipes`."""
