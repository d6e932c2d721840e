"""The report of a study: `results.json`, `report.md`, `report.html` and the pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import translated
from hfgrow.errors import printable
from hfgrow.study import page
from hfgrow.study.design import Design
from hfgrow.study.gradients import dead_gradients
from hfgrow.study.machine import Machine
from hfgrow.study.plots import has_matplotlib, pictures
from hfgrow.study.results import Result, by_arm
from hfgrow.study.run import write_text
from hfgrow.study.sections import blocks
from hfgrow.study.summary import Summary, summary
from hfgrow.study.timings import timings

PLOTS = "plots"


def write_report(
    design: Design, found: Sequence[Result], out: Path, *, command: str, machine: Machine
) -> Summary:
    """Write the report of a study into its folder, and return its numbers.

    Args:
        design: The runs.
        found: What they measured.
        out: The folder.
        command: What was typed.
        machine: What it ran on.

    Raises:
        OutputError: It cannot be written.
    """
    summed = summary(design, found, dead_gradients(design))
    drawn: list[page.Picture] = []
    if has_matplotlib():
        drawn = [page.Picture(*picture) for picture in pictures(by_arm(found), summed)]
    content = list(blocks(design, found, summed, drawn, command, machine))
    title = f"Study {design.study.name} ({design.study.size})"
    with translated(printable(out, 200)):
        (out / PLOTS).mkdir(parents=True, exist_ok=True)
        for picture in drawn:
            (out / PLOTS / picture.name).write_bytes(picture.png)
    document = {
        "study": design.study.model_dump(mode="json"),
        "command": command,
        "machine": {
            "processor": machine.processor,
            "num_cores": machine.num_cores,
            "devices": list(machine.devices),
            "versions": machine.versions,
        },
        "summary": summed.to_json(),
        "timings": timings(design, found),
        "runs": [result.to_json() for result in found],
    }
    write_text(out / "results.json", json.dumps(document, indent=1) + "\n")
    write_text(out / "report.md", page.markdown(title, content, PLOTS))
    write_text(out / "report.html", page.html(title, content))
    return summed


def document_of(summed: Summary, out: Path) -> dict[str, Any]:
    """Return what the command prints of a study as JSON."""
    return {"folder": str(out), "report": str(out / "report.html"), "summary": summed.to_json()}
