"""How far growth reaches: every causal language model of transformers, grown and compared."""
