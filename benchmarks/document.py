"""Put a measured table into a document, between the two comments that bear its name."""

import re
from pathlib import Path

OPERATORS = Path(__file__).resolve().parents[1] / "docs" / "operators.md"


def between(text: str, name: str) -> str:
    """Return what stands between the comments of a name.

    Raises:
        ValueError: There is not exactly one such place.
    """
    found = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"{len(found)} places are named {name}, not 1")
    return str(found[0])


def put(path: Path, name: str, content: str) -> None:
    """Replace what stands between the comments of a name.

    Raises:
        ValueError: There is not exactly one such place.
    """
    text = path.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    old = between(text, name)
    path.write_text(
        text.replace(f"{start}{old}{end}", f"{start}{content.strip()}\n{end}"), encoding="utf-8"
    )
