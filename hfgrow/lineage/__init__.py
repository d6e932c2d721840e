"""What is recorded and told of a model: hfgrow.json, card, ledger, pictures."""
