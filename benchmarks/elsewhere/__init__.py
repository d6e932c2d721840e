"""What other programs make of grown models, each in an environment of its own."""
