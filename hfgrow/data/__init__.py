"""Text to training samples: read once, tokenise to flat files, order by arithmetic, batch."""
