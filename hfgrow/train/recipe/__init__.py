"""The recipe of a run: what it says, and what of it cannot be."""
