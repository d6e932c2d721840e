"""Results as lm-evaluation-harness writes them, and a stand-in that does."""

from typing import Any

# What lm-eval 0.4.13 wrote of two local tasks, cut to what is read; the configurations of
# arc_challenge and lambada_openai are those of its task files.
RESULTS: dict[str, Any] = {
    "results": {
        "arc_challenge": {
            "name": "arc_challenge",
            "alias": "arc_challenge",
            "sample_len": 12,
            "acc,none": 0.5,
            "acc_stderr,none": 0.15075567228888181,
            "acc_norm,none": 0.25,
            "acc_norm_stderr,none": 0.15075567228888181,
        },
        "lambada_openai": {
            "name": "lambada_openai",
            "alias": "lambada_openai",
            "sample_len": 4,
            "perplexity,none": 39.86181244015256,
            "perplexity_stderr,none": "N/A",
            "acc,none": 0.75,
            "acc_stderr,none": float("nan"),
        },
        "mine": {"alias": "mine", "mcc,none": -0.5, "exact_match,strict-match": 0.5},
    },
    "configs": {
        "arc_challenge": {
            "dataset_path": "allenai/ai2_arc",
            "dataset_name": "ARC-Challenge",
            "validation_split": "validation",
            "test_split": "test",
        },
        "lambada_openai": {
            "dataset_path": "EleutherAI/lambada_openai",
            "dataset_name": "default",
            "test_split": "test",
        },
        "mine": {"dataset_path": "json", "validation_split": "validation"},
    },
    "versions": {"arc_challenge": 1.0, "lambada_openai": 1.0, "mine": 1.0},
    "n-shot": {"arc_challenge": 25, "lambada_openai": 0, "mine": 0},
    "n-samples": {
        "arc_challenge": {"original": 12, "effective": 12},
        "lambada_openai": {"original": 5153, "effective": 4},
        "mine": {"original": 2, "effective": 2},
    },
    "lm_eval_version": "0.4.13",
}
# A harness that is not there: it writes the results above, and says how it was called.
STAND_IN = """
import json, pathlib, sys
words = sys.argv[1:]
if "missing" in words[words.index("--tasks") + 1]:
    raise ValueError("Tasks not found: missing")
if "offline" in words[words.index("--tasks") + 1]:
    raise ConnectionError("Couldn't reach 'allenai/sciq' on the Hub")
model = words[words.index("--model_args") + 1].partition("=")[2]
assert (pathlib.Path(model) / "config.json").is_file()
if (pathlib.Path(model) / "too-large").exists():
    raise MemoryError("no memory left")
results = json.loads(RESULTS)
if "--limit" in words:
    limit = int(words[words.index("--limit") + 1])
    for samples in results["n-samples"].values():
        samples["effective"] = min(limit, samples["original"])
out = pathlib.Path(words[words.index("--output_path") + 1], "model")
out.mkdir(parents=True)
(out / "results_2026.json").write_text(json.dumps(results))
print("measured", *words)
"""
