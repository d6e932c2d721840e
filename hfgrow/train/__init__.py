"""Continued pretraining: recipes, data, the loop, its checkpoints and its ledger."""
