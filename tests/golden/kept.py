"""What is kept of commit 0e9aef6, the commands that make it, and what of it may differ."""

import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from tests.program import Finished

COMMIT = "0e9aef6"
HERE = Path(__file__).parent
GROWTHS = {
    "stack": ["stack", "demo", "--g", "4"],
    "hyperclone-noisy": ["hyperclone-noisy", "demo", "--g", "2"],
    "zero-depth": ["zero-depth", "demo", "--g", "2"],
    "apply": ["apply", "steps.yaml", "demo", "--max-shard-size", "8MB"],
}
# Runs of recipe.yaml, and the step of 8 that each is kept at: 4 is just before the growth, which
# grows the optimizer's state too, 6 inside the training after it. Muon's momentum could not
# grow then.
RUNS: dict[str, tuple[int, list[str]]] = {
    "adamw": (4, []),
    "schedule_free_adamw": (6, []),
    "muon": (6, ["--set", "stages.1.grow.optimizer_state=reset"]),
}
# The demo recipe on a text that is the same everywhere: its own comes with Python, and changes.
DEMO = [
    *("train", "demo", "--cpu", "--set", "output=run"),
    *("--set", 'data.train=[{path: text.txt, split: "train[:80%]"}]'),
    *("--set", 'data.validation=[{path: text.txt, split: "train[80%:]"}]'),
    *("--set", "evaluation.tokens=1024", "--set", "stages.1.train.tokens=4096"),
]
# What a card says otherwise since.
_SAID_OTHERWISE = {
    "seams before layers 6.": "a seam before layer 6.",
    "the others copied": "any others copied",
    "and not trained since.": "and not trained since, as far as is recorded.",
    "- Not trained after growth:": "- Not trained after growth, as far as is recorded:",
}
# Of weights whose sha256 nobody recorded a card tells the plan, and that nothing has compared them.
_PLAN, _UNCOMPARED = (
    "By the plan of the growth",
    "the same command gives the same bytes. As far as is recorded, nothing has compared the grown "
    "weights with the base since they were written.",
)
_PLAN_SINCE = {
    r"^(\d+ tensors are computed .*)\. The same .*": rf"{_PLAN} \1; {_UNCOMPARED}",
    r"^Embeddings, .* Every (tensor .*)\.$": rf"{_PLAN} every \1 from the base; {_UNCOMPARED}",
}
# What a command records of the machine, its speed, and the releases that made it.
_OF_THE_MACHINE = {"versions", "seconds", "device", "tokens_per_s", "mfu"}
_SUMS = "SHA256SUMS"
_CONFIG = "config.json"
# What config.json says twice since then, for programs that read older words.
_SAID_SINCE = {"rope_theta"}
# Matrices with rows of zeros, which other programs are to be told of; axes, which are drawn.
_RECORD_SINCE = (r',\n *"zero_rows": \{[^}]*\}', r',\s+"axes": \{[^}]*\}')
_SECTION_SINCE = re.compile("^## In other programs\n.*?(?=^## )", re.MULTILINE | re.DOTALL)
# How a growth is drawn has changed: of pictures there are hashes of later ones, in a file of their
# own as sha256sum writes it, to be written anew where a picture is drawn otherwise on purpose.
_PICTURES = {"layers.svg", "widths.svg"}
_PICTURE_SUMS = "PICTURES.SHA256SUMS"
# What is copied, to show what differs; of the other files a hash is enough.
_TEXTS = ("hfgrow.json", "README.md")


class Hfgrow(Protocol):
    """The program of some commit."""

    def __call__(self, *args: str | Path, cwd: Path | None = None) -> Finished: ...


def grow(hfgrow: Hfgrow, name: str, parent: Path) -> Path:
    """Grow the demo model into a folder that has the name of the growth."""
    out = parent / name
    done = hfgrow(*GROWTHS[name], "--out", out, cwd=HERE)
    assert done.returncode == 0, done.stderr
    return out


def train(hfgrow: Hfgrow, optimizer: str, folder: Path, *flags: str) -> None:
    """Run recipe.yaml with an optimizer, in a folder that may hold its run."""
    shutil.copy(HERE / "recipe.yaml", folder)
    words = ["train", "recipe.yaml", "--cpu", "--set", f"optimizer.name={optimizer}"]
    run_in(hfgrow, folder, [*words, *RUNS[optimizer][1], *flags])


def run_in(hfgrow: Hfgrow, folder: Path, words: list[str]) -> None:
    """Train on the text of this folder."""
    shutil.copy(HERE / "text.txt", folder)
    done = hfgrow(*words, cwd=folder)
    assert done.returncode == 0, done.stderr


def keep_growth(out: Path) -> None:
    """Keep hashes of what a growth computes and copies, and copies of what it says."""
    kept = kept_growth(out.name)
    kept.mkdir(parents=True)
    for name in _TEXTS:
        shutil.copy(out / name, kept)
    lines = [f"{digest}  {name}\n" for name, digest in sorted(hashes(out).items())]
    (kept / _SUMS).write_text("".join(lines))


def kept_growth(name: str) -> Path:
    """Return the folder of what is kept of a growth."""
    return HERE / "growths" / name


def put_kept_texts(name: str, out: Path) -> None:
    """Put the kept config.json, hfgrow.json and card into a folder that was grown."""
    for text in _TEXTS:
        shutil.copy(kept_growth(name) / text, out)
    (out / _CONFIG).write_bytes(_config_as_kept(out))
    # Its record says nothing of axes.
    (out / "widths.svg").unlink(missing_ok=True)


def _config_as_kept(out: Path) -> bytes:
    content = json.loads((out / _CONFIG).read_text())
    assert content["rope_theta"] == content["rope_parameters"]["rope_theta"]
    kept = {key: value for key, value in content.items() if key not in _SAID_SINCE}
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def kept_hashes(name: str) -> dict[str, str]:
    """Return the kept sha256 of each file of a growth."""
    found = _sums(kept_growth(name) / _SUMS)
    return {file: digest for file, digest in found.items() if file not in _PICTURES}


def kept_pictures(name: str) -> dict[str, str]:
    """Return the sha256 of each picture of a growth, as it was drawn last."""
    found = _sums(HERE / _PICTURE_SUMS)
    return {
        path.removeprefix(f"{name}/"): digest
        for path, digest in found.items()
        if path.startswith(f"{name}/")
    }


def pictures(out: Path) -> dict[str, str]:
    """Return the sha256 of each picture of a growth."""
    return {path.name: digest(path) for path in out.iterdir() if path.name in _PICTURES}


def _sums(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return {file: digest for digest, _, file in (line.partition("  ") for line in lines)}


def hashes(out: Path) -> dict[str, str]:
    """Return the sha256 of each file that tells nothing of the machine.

    That of config.json is without what it says twice since then.
    """
    ignored = {*_TEXTS, *_PICTURES, ".hfgrow-base"}
    found = {path.name: digest(path) for path in out.iterdir() if path.name not in ignored}
    return found | {_CONFIG: sha256(_config_as_kept(out)).hexdigest()}


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def card(folder: Path) -> list[str]:
    """Return the lines of a card without the versions that made it, and what it tells since."""
    text = re.sub(_SECTION_SINCE, "", (folder / "README.md").read_text())
    text = re.sub(r"!\[.*\]\(widths.svg\)\n\n", "", text)
    for before, since in _SAID_OTHERWISE.items():
        text = text.replace(before, since)
    for sentence, plan in _PLAN_SINCE.items():
        text = re.sub(sentence, plan, text, flags=re.MULTILINE)
    return [re.sub("^Made with .* Lineage", "Lineage", line) for line in text.splitlines()]


def growth_record(folder: Path) -> str:
    """Return hfgrow.json of a growth to the letter, without versions and what is told since."""
    text = (folder / "hfgrow.json").read_text()
    for since in _RECORD_SINCE:
        text = re.sub(since, "", text)
    return re.sub(r'"versions": \{[^}]*\}', "", text)


def run_record(folder: Path) -> dict[str, Any]:
    """Return the values of a run's hfgrow.json by their paths.

    Without the hash of its end, and what is told since.
    """
    document = json.loads((folder / "hfgrow.json").read_text())
    for file in document["chain"][-1]["result"]["files"].values():
        # Of trained weights, which rounding changes; the hashes of the models before stay.
        del file["sha256"]
    for link in document["chain"]:
        link.pop("zero_rows", None)
    # A run knows its base, and what it grows, by their bytes since then.
    known = [document["chain"][0].get("base")]
    known += [link["result"] for link in document["chain"][:-1] if link["kind"] == "growth"]
    for model in filter(None, known):
        for file in model["files"].values():
            file.pop("sha256", None)
    return dict(_values(document))


def metrics(folder: Path) -> dict[str, Any]:
    """Return the values of metrics.jsonl by their paths."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return dict(_values([json.loads(line) for line in lines]))


def keep_run(folder: Path, name: str) -> None:
    """Keep the record of a finished run, and the run as a kill after the kept step leaves it."""
    run, kept = folder / "run", kept_run(name)
    kept.mkdir(parents=True)
    shutil.copy(run / "metrics.jsonl", kept)
    shutil.copy(run / "final" / "hfgrow.json", kept)
    if name in RUNS:
        _cut(run, RUNS[name][0])
        with tarfile.open(kept / "run.tar.xz", "w:xz", preset=9) as archive:
            archive.add(run, "run", filter=_without_owner)


def kept_run(name: str) -> Path:
    """Return the folder of what is kept of a run."""
    return HERE / "runs" / name


def unpack_run(name: str, folder: Path) -> Path:
    """Put the kept run into a folder."""
    with tarfile.open(kept_run(name) / "run.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "run"


def _cut(run: Path, step: int) -> None:
    """Take away what a finished run has done after a step."""
    checkpoint = run / "checkpoints" / f"step-{step:08d}"
    stage = json.loads((checkpoint / "state.json").read_text())["position"]["stage"]
    begun = {*run.joinpath("checkpoints").iterdir()} - {checkpoint}
    later = {path for path in run.joinpath("stages").glob("[0-9]*") if int(path.name) >= stage}
    for folder in [*begun, *later, run / "final"]:
        shutil.rmtree(folder)
    recorded = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(
        "".join(line for line in recorded if _place(line) <= (stage, step))
    )
    # It names a folder of the machine, and a run that has moved does without.
    for path in run.rglob(".hfgrow-base"):
        path.unlink()


def _place(line: str) -> tuple[int, int]:
    recorded = json.loads(line)
    return recorded["stage"], recorded["step"]


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _values(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Go through what a document says that is not of the machine, each value with its path."""
    if isinstance(document, dict | list):
        parts = document.items() if isinstance(document, dict) else enumerate(document)
        for key, part in parts:
            if key not in _OF_THE_MACHINE:
                yield from _values(part, f"{path}/{key}")
    else:
        yield path, document
