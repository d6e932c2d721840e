"""Side-by-side measurements against cp, mergekit, transformers and LLaMA-Factory; run by hand."""
