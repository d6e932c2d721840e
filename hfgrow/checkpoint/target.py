"""Which folders may become an output: new ones, and with --overwrite models that stand there."""

import os
from pathlib import Path

from hfgrow.errors import OutputError, printable
from hfgrow.names import CONFIG, MANIFEST


def check_target(target: Path, base: Path | None, *, overwrite: bool) -> None:
    """Refuse an output folder that must not be written.

    Args:
        target: The folder to create.
        base: The folder of the base, which must not be touched.
        overwrite: Whether a model that stands there may be replaced.

    Raises:
        OutputError: The target exists, is or holds the base or a folder one works in, or is inside
            the base; or it exists and is no model, so that replacing it would lose something else.
    """
    shown = printable(target, 200)
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        if not target.is_absolute():
            raise OutputError(
                "the working folder does not exist any more", hint="cd to one"
            ) from error
        here = Path("/")
    real = Path(os.path.realpath(target))
    home = Path(os.path.realpath(Path.home()))
    if real in (real.parent, here, home, *here.parents, *home.parents):
        raise OutputError(
            f"{shown} cannot be an output folder", hint="name a new folder: --out DIR"
        )
    if base is not None:
        check_apart(target, base)
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise OutputError(f"{shown} exists and is not a folder", hint="name another: --out DIR")
        found = os.listdir(target) if target.is_dir() else []
    except OSError as error:
        raise OutputError(f"cannot look into {shown}: {error.strerror}") from error
    if found and not overwrite:
        raise exists(target)
    if found and CONFIG not in found and MANIFEST not in found:
        raise OutputError(
            f"{shown} exists and holds no model ({len(found)} entries, no {CONFIG})",
            hint="--overwrite replaces models only; choose another --out DIR",
        )


def check_apart(target: Path, base: Path) -> None:
    """Refuse an output that is the base, holds it, or lies in it.

    Raises:
        OutputError: It does.
    """
    real, source = Path(os.path.realpath(target)), Path(os.path.realpath(base))
    if real == source or source in real.parents or real in source.parents:
        raise OutputError(
            f"the output {printable(target, 200)} and the base {printable(base, 200)} must be "
            "apart",
            hint="name a folder outside the base: --out DIR",
        )


def exists(target: Path) -> OutputError:
    """Return the error for an output that is there already."""
    return OutputError(
        f"the output folder {printable(target, 200)} exists",
        hint="add --overwrite, or choose another --out DIR",
    )
