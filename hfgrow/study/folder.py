"""The folder of a study: its text, what its runs were begun with, and where they ran.

study.json           that this is a study, its text, and by which commands and where each run ran
recipes/NAME.yaml    the recipe of a run
runs/NAME            the run, NAME.log beside it
tokens/              the text, tokenised once: runs that begin at the same time would each do it
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.locks import LOCK, held
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import Progress, Silent
from hfgrow.data.corpus import corpus_of, open_sources
from hfgrow.data.text_tokenizer import open_tokenizer
from hfgrow.data.views import TokenView
from hfgrow.errors import OutputError, UsageError, argument, printable
from hfgrow.growth.models import local_folder, locate
from hfgrow.hub.client import HubClient
from hfgrow.lineage.manifest import PACKAGES, versions_of
from hfgrow.study.design import Design, StudyRun
from hfgrow.train.initial_weights import fresh_config
from hfgrow.train.recipe.parts import FreshModel, Source, text_source
from hfgrow.train.recipe.recipe import Recipe, load_recipe

STUDY = "study.json"
_SEED = re.compile(r"(.+)-seed([0-9]{1,20})", re.ASCII)
_NAMES = "import torch; [print(torch.cuda.get_device_name(i)) for i in range({})]"
_PATIENCE_S = 120


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of a study.

    Attributes:
        path: Where it lies.
    """

    path: Path

    @property
    def runs(self) -> Path:
        """Where the runs lie."""
        return self.path / "runs"

    @property
    def recipes(self) -> Path:
        """Where their recipes lie."""
        return self.path / "recipes"

    @property
    def tokens(self) -> Path:
        """Where the text lies that they share."""
        return self.path / "tokens"

    @property
    def is_study(self) -> bool:
        """Whether a study lies here: where there is no study.json, its two folders tell."""
        return (self.path / STUDY).is_file() or (self.recipes.is_dir() and self.runs.is_dir())

    @contextmanager
    def taken_up(self) -> Iterator[None]:
        """Make the folder or take up the study that is there, and hold it in the block.

        Raises:
            OutputError: Something else lies there, or another process writes it.
        """
        with held_for(self.path, "study", is_one=lambda: self.is_study):
            with translated(printable(self.path, 200)):
                self.runs.mkdir(exist_ok=True)
                self.recipes.mkdir(exist_ok=True)
            if not (self.path / STUDY).is_file():
                self._write({})
            yield

    def check_is_study(self) -> None:
        """Refuse to report a folder without a run.

        Raises:
            UsageError: It is no study, or nothing in it was begun.
        """
        shown = printable(self.path, 200)
        if not self.is_study or not any(entry.is_dir() for entry in self.runs.glob("*-seed*")):
            raise UsageError(
                f"{shown} holds no run of a study",
                hint=f"name the folder of a study: {argument('out', 'DIR')}, or leave out "
                f"{argument('report_only')}",
            )

    def seeds(self, arms: Collection[str]) -> set[int]:
        """Return the seeds of the runs of arms that lie here."""
        found = (_SEED.fullmatch(entry.name) for entry in self.runs.glob("*-seed*"))
        return {int(match[2]) for match in found if match and match[1] in arms}

    def recipe_of(self, job: StudyRun) -> Path:
        """Return the file that the recipe of a run is written to."""
        return self.recipes / f"{job.name}.yaml"

    def check_unchanged(self, jobs: Iterable[StudyRun]) -> None:
        """Refuse a study that says something else than the runs in its folder did.

        Raises:
            UsageError: It does.
        """
        for job in jobs:
            path = self.recipe_of(job)
            if not job.folder.exists() or not path.is_file():
                continue
            before, now = load_recipe(path.absolute()).identity(), job.recipe.identity()
            changed = [k for k in sorted(before.keys() | now.keys()) if before.get(k) != now.get(k)]
            if changed:
                key, more = changed[0], f" and {len(changed) - 1} more" if changed[1:] else ""
                raise UsageError(
                    f"{printable(job.folder, 200)} was begun with another recipe: {key} was "
                    f"{_shown(before.get(key))}, is {_shown(now.get(key))}{more}",
                    hint=f"give the study that it was begun with, another {argument('out')}, or "
                    "remove that folder",
                )

    def note_text(self, text: Mapping[str, Any]) -> None:
        """Write down which text the runs read, and refuse another one than those that are there.

        Args:
            text: What `Text.to_json` gave.

        Raises:
            UsageError: A run read another text.
            OutputError: It cannot be written.
        """
        known = self.text
        changed = [
            part["label"]
            for what in ("train", "validation")
            for part, old in zip(text[what], (known or text)[what], strict=False)
            if part["fingerprint"] != old["fingerprint"]
        ]
        if changed:
            raise UsageError(
                f"{printable(changed[0])} is another text than the runs in "
                f"{printable(self.path, 200)} read",
                hint=f"put the text back, or begin anew with another {argument('out')}",
            )
        if known != text:
            self._write({"text": dict(text)})

    @property
    def text(self) -> dict[str, Any] | None:
        """Which text the runs read; None if nobody wrote it down."""
        found = self._content().get("text")
        return found if isinstance(found, dict) else None

    def note(self, name: str, place: Mapping[str, Any]) -> None:
        """Write down where a run runs, unless that is where it ran last.

        Args:
            place: The command and the machine.

        Raises:
            OutputError: It cannot be written.
        """
        known = self.places()
        if known.get(name, [])[-1:] != [place]:
            self._write({"runs": {**known, name: [*known.get(name, []), dict(place)]}})

    def places(self) -> dict[str, list[dict[str, Any]]]:
        """Return where each run ran, by its name: `command` and `machine`, in order."""
        runs = self._content().get("runs")
        return runs if isinstance(runs, dict) else {}

    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads((self.path / STUDY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self, changes: Mapping[str, Any]) -> None:
        content = {"runs": {}, **self._content(), **changes}
        with translated(printable(self.path, 200)):
            replace_text(self.path / STUDY, json.dumps(content, indent=1) + "\n")


def _shown(value: object) -> str:
    return printable(repr(value), 100)


@contextmanager
def held_for(path: Path, kind: str, *, is_one: Callable[[], bool]) -> Iterator[None]:
    """Hold a folder in the block, made if it is not there; one of something else is refused.

    Args:
        kind: What it is of: a study, or a comparison.
        is_one: Whether that is what lies in it.

    Raises:
        OutputError: Something else lies there, or another process writes it.
    """
    shown = printable(path, 200)
    with held(path, hint=f"wait for it, or choose another {argument('out')}"):
        with translated(shown):
            is_empty = all(entry.name == LOCK for entry in path.iterdir())
            if not is_empty and not is_one():
                raise OutputError(
                    f"{shown} exists and is no {kind}", hint=f"choose another {argument('out')}"
                )
        yield


def tokenise(recipe: Recipe, tokens: Path, progress: Progress) -> dict[str, Any]:
    """Tokenise the text of a study, and return what it is.

    Args:
        recipe: Of one of its runs.
        tokens: The folder of tokenised text.

    Returns:
        `train` and `validation`, of each text `label`, `num_tokens` and `fingerprint`; and `notes`,
        such as that the two share documents.

    Raises:
        GrowthError: A text or the tokenizer is not there, or cannot be trained on.
    """
    assert isinstance(recipe.base, FreshModel)
    assert recipe.tokenizer is not None
    client = HubClient()
    ref = locate(recipe.tokenizer, None, client, progress)
    tokenizer = open_tokenizer(local_folder(ref, client, Silent()))
    vocab_size = int(fresh_config(recipe.base.config).vocab_size)
    with translated(printable(tokens, 200)):
        tokens.mkdir(parents=True, exist_ok=True)

    def views(sources: Sequence[Source]) -> tuple[TokenView, ...]:
        return open_sources(
            [text_source(source) for source in sources],
            tokenizer,
            tokens,
            vocab_size=vocab_size,
            client=client,
            progress=progress,
        )

    train, validation = views(recipe.data.train), views(recipe.data.validation)
    length = recipe.data.sequence_length
    corpus = corpus_of(train, validation, sequence_length=length, seed=recipe.seed)
    for note in corpus.notes:
        progress.say(f"Note: {note}")
    return {
        "train": [_described(view) for view in train],
        "validation": [_described(view) for view in validation],
        "notes": list(corpus.notes),
    }


def text_lines(text: dict[str, Any] | None, num_read: int) -> list[str]:
    """Return what was read, in a few lines.

    Args:
        text: What `tokenise` returned; None if nobody wrote it down.
        num_read: Tokens of the longest run.
    """
    if text is None:
        return ["Which text the runs read is not recorded."]
    parts = {
        what: ", ".join(f"{one['label']} ({one['num_tokens']:,} tokens)" for one in text[what])
        for what in ("train", "validation")
    }
    num_tokens = sum(one["num_tokens"] for one in text["train"])
    held_out = parts["validation"] or "a part of that, another one for each seed"
    return [
        f"Text: {parts['train']}, of which the longest run read {num_read:,} tokens, "
        f"{num_read / num_tokens:.2g} times as many as there are. Held out: {held_out}.",
        *(f"Note: {note}." for note in text["notes"]),
    ]


def _described(view: TokenView) -> dict[str, Any]:
    label = printable(view.label, 200)
    return {"label": label, "num_tokens": view.num_tokens, "fingerprint": view.fingerprint}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine.

    Attributes:
        processor: Model of the CPU.
        num_cores: Cores that this process may use.
        devices: Names of the GPUs; empty on a CPU.
        versions: Package -> version.
    """

    processor: str
    num_cores: int
    devices: tuple[str, ...]
    versions: dict[str, str]

    @classmethod
    def here(cls, *, on_cpu: bool) -> "Machine":
        """Return this machine."""
        num_cores = len(os.sched_getaffinity(0))
        devices = () if on_cpu else _devices()
        return cls(_processor(), num_cores, devices, versions_of(*PACKAGES))

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {**asdict(self), "devices": list(self.devices)}


def words_of(machine: Mapping[str, Any]) -> str:
    """Return a machine in one line.

    Args:
        machine: What `Machine.to_json` gave.
    """
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    cores = f"{machine['num_cores']} core{'' if machine['num_cores'] == 1 else 's'}"
    parts = [f"{machine['processor']}, {cores}", *machine["devices"]]
    return "; ".join([*parts, versions])


def _devices() -> tuple[str, ...]:
    """Return the names of the GPUs, asked in another process: here, they would stay open."""
    import torch

    if not torch.cuda.is_available():
        return ()
    # -P: a torch.py in the working folder is not imported.
    words = [sys.executable, "-P", "-c", _NAMES.format(torch.cuda.device_count())]
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=_PATIENCE_S
        )
        return tuple(printable(line, 100) for line in found.stdout.splitlines())
    return ("unknown GPU",)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return printable(line.partition(":")[2].strip(), 100)
    return printable(platform.processor() or platform.machine(), 100)


@dataclass(frozen=True, slots=True)
class Ran:
    """A command on a machine.

    Attributes:
        command: What was typed.
        machine: The machine, as `Machine.to_json` has it.
        runs: The names of the runs that ran there, or did a part of it.
    """

    command: str
    machine: Mapping[str, Any]
    runs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)


def where_ran(design: Design, places: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Ran]:
    """Return the commands and machines that runs ran by, in the order of the runs.

    Args:
        places: Where each ran, as the folder of the study has it.
    """
    found: list[tuple[Mapping[str, Any], list[str]]] = []
    for job in design.jobs:
        for place in places.get(job.name, ()):
            names = next((names for known, names in found if known == place), None)
            if names is None:
                found.append((place, [job.name]))
            elif job.name not in names:
                names.append(job.name)
    return [Ran(place["command"], place["machine"], tuple(names)) for place, names in found]
