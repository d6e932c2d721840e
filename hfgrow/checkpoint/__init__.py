"""Checkpoints on disk: strict reading, in-kernel writing."""
