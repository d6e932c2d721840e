"""A study so small that its runs take seconds."""

from pathlib import Path
from typing import Any

from tests.train.runs import recipe


def tiny(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a study of a base of one layer and arms of two, on text in `folder`."""
    common = recipe(folder)
    config = common["base"]["config"]
    return {
        "name": "tiny",
        "question": "Does <b>growing</b> help? | 1 & 2",
        "tokenizer": common["tokenizer"],
        "model": config,
        "bases": {"small": {"config": {"num_hidden_layers": 1}}},
        "base_tokens": 1024,
        "data": common["data"],
        "batch_tokens": 256,
        "micro_batch_size": 8,
        "precision": "fp32",
        "evaluation": {"every_tokens": 512, "tokens": 512},
        "base_train": {"learning_rate": 1e-2},
        "train": {"tokens": 2048, "learning_rate": 1e-2, "schedule": "constant"},
        "arms": {
            "scratch": {"scratch": "equal-compute"},
            "stack": {"grow": {"operator": "stack", "g": 2}, "paper": "better"},
        },
        "seeds": [0],
        **changes,
    }
