"""Families that transformers' own models tell: built without numbers, compared layer by layer."""
