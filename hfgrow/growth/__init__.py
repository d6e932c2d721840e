"""The commands on one model: grow, verify, reproduce, publish."""
