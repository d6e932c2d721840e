"""Learned growth: maps from a base to a larger model, trained on text."""
