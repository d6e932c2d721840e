"""The report of a study: `results.json`, `report.md`, `report.html` and the pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import replace_bytes, replace_text, translated
from hfgrow.errors import printable
from hfgrow.study import page
from hfgrow.study.design import Design
from hfgrow.study.folder import StudyFolder
from hfgrow.study.gradients import dead_gradients
from hfgrow.study.plots import PICTURES, has_matplotlib, pictures
from hfgrow.study.ran import where_ran
from hfgrow.study.results import Result, by_arm
from hfgrow.study.sections import blocks
from hfgrow.study.summary import Summary, summary
from hfgrow.study.timings import timings

PLOTS = "plots"


def write_report(design: Design, found: Sequence[Result], folder: StudyFolder) -> Summary:
    """Write the report of a study into its folder, and return its numbers.

    Args:
        design: The runs.
        found: What they measured.
        folder: The folder.

    Raises:
        OutputError: It cannot be written.
    """
    summed = summary(design, found, dead_gradients(design))
    drawn: list[page.Picture] = []
    if has_matplotlib():
        drawn = [page.Picture(*picture) for picture in pictures(by_arm(found), summed)]
    ran = where_ran(design, folder.places())
    content = list(blocks(design, found, summed, drawn, ran, folder.text))
    title = f"Study {design.study.name} ({design.study.size})"
    document = {
        "study": design.study.model_dump(mode="json"),
        "text": folder.text,
        "ran": [one.to_json() for one in ran],
        "summary": summed.to_json(),
        "timings": timings(design, found),
        "runs": [result.to_json() for result in found],
    }
    out = folder.path
    with translated(printable(out, 200)):
        _draw(out / PLOTS, drawn)
        replace_text(out / "results.json", json.dumps(document, indent=1) + "\n")
        replace_text(out / "report.md", page.markdown(title, content, PLOTS))
        replace_text(out / "report.html", page.html(title, content))
    return summed


def _draw(folder: Path, drawn: Sequence[page.Picture]) -> None:
    """Write the pictures, each complete or not at all; one that is not drawn any more goes."""
    folder.mkdir(exist_ok=True)
    names = {picture.name for picture in drawn}
    for name in PICTURES:
        if name not in names:
            (folder / name).unlink(missing_ok=True)
    for picture in drawn:
        replace_bytes(folder / picture.name, picture.png)


def document_of(summed: Summary, out: Path) -> dict[str, Any]:
    """Return what the command prints of a study as JSON."""
    return {"folder": str(out), "report": str(out / "report.html"), "summary": summed.to_json()}
