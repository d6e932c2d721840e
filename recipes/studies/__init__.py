"""The studies that travel with hfgrow."""
