"""The folder of a study: that it is one, what its runs were begun with, and where they ran.

study.json       that this is a study, its text, and by which commands and where each run ran
recipes/NAME.yaml    the recipe of a run
runs/NAME        the run, NAME.log beside it
tokens/          the text, tokenised once for all
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.locks import LOCK, held
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.errors import OutputError, UsageError, printable
from hfgrow.study.job import StudyRun
from hfgrow.train.recipe.recipe import load_recipe

STUDY = "study.json"
_SEED = re.compile(r"(.+)-seed([0-9]{1,20})", re.ASCII)


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
        shown = printable(self.path, 200)
        with held(self.path, hint="wait for it, or choose another --out"):
            with translated(shown):
                is_empty = all(entry.name == LOCK for entry in self.path.iterdir())
                if not is_empty and not self.is_study:
                    raise OutputError(
                        f"{shown} exists and is no study", hint="choose another --out"
                    )
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
                hint="name the folder of a study: --out DIR, or leave out --report-only",
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
                    hint="give the study that it was begun with, another --out, or remove that "
                    "folder",
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
                hint="put the text back, or begin anew with another --out",
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
            name: The run.
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
