"""The catalogue of adversarial cases and faults, and which tests hold each of them.

A test names its cases in a marker, `@pytest.mark.case("A12")`. `python -m tests.catalogue` writes
the table, tests/CATALOGUE.md; tests/test_catalogue.py fails when a case has no test, when a marker
names no case, and when the table is not what this module writes.
"""

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = TESTS / "CATALOGUE.md"
GROUPS = {
    "A": "Malformed safetensors files",
    "B": "Index and set of files",
    "C": "config.json and architecture",
    "D": "Names, options and paths",
    "E": "File system and processes",
    "F": "The Hub",
    "G": "Secrets and cards",
    "H": "Training and its checkpoints",
    "I": "The whole pipeline",
}
# Number, the case, and after a bar what was decided where that is not plain.
CASES = """
A1   empty file; file of 7 bytes
A2   header length of 0, beyond the file, or 2^64 - 1
A3   header length of 100,000,001
A4   data truncated by a byte, by half, at every sixteenth
A5   bytes after the last tensor
A6   hole between tensors; first offset not 0
A7   overlap; two names for one range
A8   negative, reversed or fractional offsets; negative shape
A9   product of a shape beyond 64 bits
A10  shape and dtype that do not fill the range
A11  unknown or lower-case dtype
A12  quantised dtypes: fp8, fp4, integers
A13  a key that stands twice
A14  `__metadata__` twice, or with a value that is no string
A15  unknown field; spaces before the header
A16  200,000 nested brackets
A17  header not UTF-8, a list, or padded with NUL
A18  tensor names: empty, a path, escape codes, markup, 1 MB, right-to-left
A19  no tensors; a tensor without numbers; rank 200
A20  NaN or infinity in the weights | a plain copy never reads its weights, or it would not be \
as fast as the disk: what is computed is looked at, and everything with --verify, before a push, \
and by `hfgrow check --weights`
A21  pickle, GGUF, HTML page, LFS pointer, zip or HDF5 under the name of a safetensors file
A22  several dtypes in one checkpoint
A23  numbers that overflow or vanish in fp16 when they are scaled | what overflows is refused; \
what is smaller than the least number of fp16 becomes 0, as in every cast
A24  `format` in the metadata absent, or not pt
A25  input replaced or truncated while it is read
A26  random bytes of a good file flipped
B1   index that names a file outside the folder
B2   index that names an absolute path, a drive, backslashes, NUL, a line break
B3   shard that is a link out of the folder, to something else
B4   shard that is a FIFO, a folder or a device
B5   shard missing
B6   tensor in two shards
B7   index that names an absent tensor or the wrong shard
B8   tensor that the index does not name
B9   single file and index side by side
B10  index without weight_map, without metadata, with a wrong total_size
B11  key that stands twice in the index
B12  index or config of 1 GB, or nested deeply
B13  only weights of other formats
B14  .bin, .py, .pkl beside the weights
B15  adapter instead of a model
B16  shards of two models mixed | names, shapes and the checksums of the Hub tell them apart; \
shards of equal shapes from two revisions, mixed in a folder by hand, have no checksum to be told by
C1   config.json missing, empty, a list, with a byte order mark, no JSON
C2   num_hidden_layers missing
C3   num_hidden_layers that the tensors do not have, or that is no number of layers
C4   other sizes that the tensors do not have
C5   sizes that do not divide; odd head_dim; head_dim of its own
C6   layer numbers with gaps, padded, or twice
C7   model_type that is not grown
C8   mixture of experts
C9   code for a known model_type
C10  code for an unknown model_type, on a terminal too
C11  tied, but with a head that differs
C12  tied, with a head that is the same
C13  untied, without a head
C14  layer_types of another length
C15  unknown keys with an entry for each layer, also inside other keys
C16  quantization_config
C17  rope parameters and biases
C18  dtype and torch_dtype, and junk in them
C19  pretraining_tp; architectures against model_type; switches that are none
C20  tokenizer missing, or larger than the vocabulary
C21  tokenizer with code or pickles, or that makes gigabytes of a page
C22  generation_config.json that transformers refuses
D1   impossible repository names
D2   shell commands in names
D3   names that look like options
D4   datasets, spaces, URLs and hf:// addresses
D5   revisions that leave the cache; refs/pr/N
D6   folder named like a model of the Hub
D7   output that is /, ., ~, the input, or in it
D8   output named with spaces, line breaks, other bytes, 300 characters
D9   growth factors that are none | 1 is refused as well: it would be no growth
D10  growth beyond the free disk
D11  header near its limit of size
D12  option twice, unknown, or argument missing
D13  recipe with unknown keys, wrong types, YAML tags, aliases | exit code 2, as for every other \
wrong argument: a recipe is what its user typed, not a model
E1   disk full while a shard is written
E2   limit of the file size
E3   disk full at any file of the output
E4   no inodes
E5   too little space, known before
E6   output exists: as a folder, empty, a file, a link
E7   failure while overwriting
E8   read-only parent
E9   read-only input and cache
E10  kill -9 at any moment of a growth
E11  kill -9 while training
E12  SIGINT, SIGTERM, SIGHUP, twice
E13  two runs to one output
E14  lock of a killed run
E15  two processes on one cache
E16  modes and umask
E17  closed and full stdout
E18  bounded memory
E19  no HOME, no TMPDIR, cwd gone, no terminal, LANG=C
E20  output on another device
E21  file system without case or without links
F-1  401: no token, bad token
F-2  403: token that may only read
F-3  gated model
F-4  404: repository, revision, file
F-5  409: repository exists; race to create it
F-6  412: branch moved during a push
F-7  429 with and without a time to wait
F-8  5xx for ever
F-9  5xx, then an answer
F-10 connection cut, slow, or hanging
F-11 download of the wrong length, or of the right length and wrong content
F-12 hostile listing: paths, a million files, 10 TB
F-13 redirect to another host
F-14 offline: cached, partly, not at all
F-15 branch that moves between config and weights
F-16 push killed or cut
F-17 commit made, answer lost
F-18 target that hfgrow did not make
F-19 target that is the base
F-20 private or gated base
F-21 escape codes and markup in the server's text
F-22 card refused
F-23 answer without sense
F-24 Xet not there
G1   token in the environment, a file, an option
G2   token on the command line
G3   token with HF_DEBUG, in a crash
G4   paths, user and host in the card
G5   hostile metadata of the base's card
G6   hostile text of the base's card
G7   names with markup
G8   licence missing, other, or not commercial
G9   training text in what is written
G10  results that the base claims
G11  a page for strangers: folders, token, cache
H1   checkpoint file truncated, missing or flipped
H2   checkpoint without its manifest
H3   pickle in a checkpoint
H4   checkpoint of another run
H5   another number of processes
H6   resume to the same bits
H7   loss or gradient not finite
H8   loss after growth, reported
H9   no text
H10  no text column
H11  other encodings, NUL, marks, line ends
H12  broken JSON lines, mixed types, null
H13  line of 20 MB
H14  tokens beyond the vocabulary
H15  sequences beyond the positions
H16  dataset with a loading script
H17  validation text that is trained on
H18  disk full at a checkpoint
H19  process that dies or hangs
H20  dtype of the trained model
H21  counters that survive a resume
I1   output loads with nothing missing, unexpected or mismatched
I2   function preserved, measured
I3   --dry-run writes nothing, and is true
I4   same command, same bytes
I5   --json: one document
I6   no escape bytes outside of a terminal
I7   --help loads nothing heavy
"""


def cases() -> dict[str, tuple[str, str]]:
    """Return number -> the case and what was decided about it, in order."""
    rows = (line.partition(" ") for line in CASES.strip().splitlines())
    parted = ((number, text.partition("|")) for number, _, text in rows)
    return {number: (text.strip(), note.strip()) for number, (text, _, note) in parted}


@cache
def found() -> dict[str, list[str]]:
    """Return number -> the tests that are marked with it, known or not, in order of their files."""
    tests: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                numbers, is_slow = _marks(node)
                label = f"`{path.relative_to(TESTS).as_posix()}::{node.name}`"
                for number in numbers:
                    tests.setdefault(number, []).append(label + " (slow)" * is_slow)
    return tests


def _marks(function: ast.FunctionDef) -> tuple[list[str], bool]:
    """Return the cases that a test is marked with, and whether it is a slow one."""
    nodes = [node for marks in function.decorator_list for node in ast.walk(marks)]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.case"]
    numbers = [ast.literal_eval(argument) for mark in marks for argument in mark.args]
    return numbers, any(ast.unparse(node) == "pytest.mark.slow" for node in function.decorator_list)


def table() -> str:
    """Return the text of the table."""
    lines, known, tests = [_HEAD], cases(), found()
    for group, title in GROUPS.items():
        lines += ["", f"## {group}. {title}", "", "| | case | tests |", "|-|-|-|"]
        for number, (text, note) in known.items():
            if number[0] == group:
                shown = f"{text}<br>*{note}*" if note else text
                lines.append(f"| {number} | {shown} | {'<br>'.join(tests.get(number, []))} |")
    return "\n".join(lines) + "\n"


_HEAD = """# The catalogue of faults

Written by `python -m tests.catalogue` from the markers of the tests, never by hand. Every case has
a test; what was decided where a case is not plain stands under it. Those marked slow run with
`pytest -m slow`."""


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
