"""What is fuzzed: functions of bytes that return or refuse in one line, and nothing else."""

import json
from collections.abc import Callable, Mapping
from math import prod

from hfgrow.checkpoint.files import CONFIG, INDEX, MANIFEST, SINGLE
from hfgrow.checkpoint.header import Entry, build_header, parse_header, read_header, read_index
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.strict import parse_json_object
from hfgrow.errors import ModelError, UsageError
from hfgrow.lineage.reading import parse_manifest
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators.stacking import stack
from tests.checkpoints import SIZES

BASE = {**SIZES, "model_type": "llama", "num_hidden_layers": 2, "tie_word_embeddings": False}
SHAPES = FAMILIES["llama"].shapes(BASE, tied=False)
HEADER = build_header([(n, "F32", s) for n, s in SHAPES.items()], metadata={"format": "pt"})
WEIGHTS = HEADER + bytes(4 * sum(map(prod, SHAPES.values())))
INDEX_JSON = json.dumps({"metadata": {"total_size": 1}, "weight_map": {"a": SINGLE, "b": SINGLE}})


class MemoryFiles:
    """Files that exist as bytes only."""

    label = "memory"
    folder = "/nowhere"

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self.content = content

    def names(self) -> list[str]:
        return sorted(self.content)

    def nbytes(self, name: str) -> int:
        return len(self.content[name])

    def stamp(self, name: str) -> tuple[int, ...]:
        return ()

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        return self.content[name][start : start + nbytes]


def check_header(data: bytes) -> None:
    """A file as it is, or, if it begins with a brace, the JSON of a header."""
    if data.startswith(b"{"):
        check_entries(parse_header(data, 8 + len(data) + 1000, SINGLE), 8 + len(data) + 1000)
    else:
        check_entries(read_header(MemoryFiles({SINGLE: data}), SINGLE), len(data))


def check_entries(entries: Mapping[str, Entry], nbytes: int) -> None:
    """What was accepted covers the file to its end, each byte once."""
    places = sorted((entry.offset, entry.nbytes) for entry in entries.values())
    starts = [offset for offset, _ in places[1:]] + [nbytes]
    for (offset, length), following in zip(places, starts, strict=False):
        assert length > 0
        assert offset + length == following


def check_index(data: bytes) -> None:
    """An index beside the file that it may name."""
    found = read_index(MemoryFiles({INDEX: data, "a.safetensors": b"", "b.safetensors": b""}))
    assert found is not None
    assert set(found.weight_map.values()) <= {"a.safetensors", "b.safetensors"}
    assert all(note.isprintable() for note in found.notes(5))


def check_config(data: bytes) -> None:
    """A config beside weights of a known shape: what is accepted has that shape."""
    plan = read(MemoryFiles({CONFIG: data, SINGLE: WEIGHTS}))
    assert plan.config["num_hidden_layers"] == 2
    assert all(note.isprintable() for note in plan.notes)
    grown = lay_out(stack(plan, g=2), 1 << 30)
    assert grown.nbytes > plan.nbytes
    json.dumps(plan.config)


def check_manifest(data: bytes) -> None:
    """A lineage."""
    parse_manifest(parse_json_object(data, MANIFEST))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": check_header,
    "index": check_index,
    "config": check_config,
    "manifest": check_manifest,
}


def seeds(target: str) -> list[bytes]:
    """Return good inputs to begin with."""
    from tests.links import link
    from tests.trained import document_of, then_trained

    trained = document_of(then_trained(link(2, [0, 1, 0, 1], card={"license": "mit"})))
    one = b'{"a":{"dtype":"BF16","shape":[2,250],"data_offsets":[0,1000]}}'
    return {
        "header": [WEIGHTS, HEADER[8:], one, b'{"__metadata__":{"format":"pt"}}'],
        "index": [INDEX_JSON.replace(SINGLE, "a.safetensors").encode()],
        "config": [json.dumps(BASE).encode()],
        "manifest": [json.dumps(trained).encode()],
    }[target]


def check_answer(target: str, data: bytes) -> bool:
    """Run a target; say whether it accepted the bytes. Anything but a refusal goes up."""
    try:
        TARGETS[target](data)
    except (ModelError, UsageError) as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) < 2000, len(message)
        return False
    return True
