"""Where the bytes of a checkpoint come from, what its files are called, which of them travel."""

import fnmatch
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from hfgrow.console import Progress, counting
from hfgrow.errors import ModelError, UsageError, command, printable
from hfgrow.plan.plan import SourceFile

_CHUNK_NBYTES = 8 << 20
# A blob of the Hub's cache, of git-annex or of DVC.
_HASH_NAME = re.compile(
    r"[0-9a-f]{30}|[0-9a-f]{32}|[0-9a-f]{38}|[0-9a-f]{40}|[0-9a-f]{62}|[0-9a-f]{64}|"
    r"(SHA256|MD5)E?-s\d+--[0-9a-f]+[\w.]*"
)


class Files(Protocol):
    """A flat set of named files that can be read by ranges."""

    @property
    def label(self) -> str:
        """How messages name the set: a path or a repository."""
        ...

    @property
    def folder(self) -> str:
        """The local folder of the files, or an empty string if they lie on the Hub."""
        ...

    def names(self) -> list[str]:
        """Return the names of all files at the top level."""
        ...

    def nbytes(self, name: str) -> int:
        """Return the size of a file.

        Raises:
            ModelError: There is no such regular file.
        """
        ...

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return what changes when the file does, or nothing if that cannot happen."""
        ...

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        """Return up to `nbytes` bytes from `start`, fewer only at the end of the file."""
        ...


def open_regular(path: Path) -> int:
    """Open a regular file for reading, without ever blocking on a FIFO or a device.

    Raises:
        ModelError: The file is missing, unreadable, not regular, or a link out of its folder.
    """
    refuse_foreign_link(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise ModelError(
                f"{printable(path, 200)} is a symbolic link to "
                f"{printable(os.path.realpath(path), 200)}, which is not there",
                hint="bring the file back, or copy models with their files: cp -rL",
            ) from error
        raise ModelError(f"cannot open {printable(path, 200)}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ModelError(f"{printable(path, 200)} is not a regular file")
    return fd


def refuse_foreign_link(path: Path) -> None:
    """Refuse a symbolic link that leaves the model folder for what its name does not say.

    Clusters, `local_dir` and caches link a file to one of the same name elsewhere, to a blob named
    by its hash, or weights to other weights. What a stranger's link would have copied and pushed,
    such as a key, is called none of these.
    """
    if not path.is_symlink():
        return
    target = Path(os.path.realpath(path))
    if target.parent == Path(os.path.realpath(path.parent)):
        return
    is_said = (
        target.name == path.name
        or _HASH_NAME.fullmatch(target.name) is not None
        or path.suffix == target.suffix == ".safetensors"
    )
    if not is_said:
        raise ModelError(
            f"{printable(path.name)} is a symbolic link that leaves the model folder, to "
            f"{printable(target, 200)}",
            hint="if it is yours, put a copy of it in the place of the link",
        )


def leaves_by_link(folder: Path, names: Iterable[str]) -> str:
    """Return the first folder that links of a model folder lead to, caches of the Hub excepted.

    Args:
        names: The files that are read.
    """
    here = Path(os.path.realpath(folder))
    for name in names:
        target = Path(os.path.realpath(folder / name))
        if target.parent not in (here, here.parent.parent / "blobs"):
            return printable(target.parent, 200)
    return ""


class LocalFolder:
    """The files of a folder on this machine.

    Args:
        path: The folder.
        label: How messages name it; the path, as given, unless something else was typed.
    """

    def __init__(self, path: Path, label: str | None = None) -> None:
        self.path = path
        self.label = label or printable(path, 200)

    @property
    def folder(self) -> str:
        """The path, absolute."""
        return str(self.path.absolute())

    def names(self) -> list[str]:
        """Return the sorted names of the entries of the folder."""
        try:
            return sorted(os.listdir(self.path))
        except OSError as error:
            raise ModelError(f"cannot list {self.label}: {error.strerror}") from error

    def nbytes(self, name: str) -> int:
        """Return the size of a regular file."""
        fd = open_regular(self.path / name)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return (device, inode, size, mtime in ns)."""
        return file_stamp(os.stat(self.path / name))

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        """Read a range with pread, so that a file that shrinks cannot raise SIGBUS."""
        fd = open_regular(self.path / name)
        try:
            return os.pread(fd, nbytes, start)
        finally:
            os.close(fd)


def file_stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what identifies a file's content cheaply: (device, inode, size, mtime in ns)."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def hash_file(path: Path, *, advance: Callable[[int], None] = lambda nbytes: None) -> str:
    """Return the sha256 of a file, and refuse one that changes meanwhile.

    Raises:
        ModelError: The file is not regular, or changed while it was read.
    """
    descriptor = open_regular(path)
    digest = sha256()
    buffer = bytearray(_CHUNK_NBYTES)
    view = memoryview(buffer)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = file_stamp(os.fstat(descriptor))
        while read_nbytes := file.readinto(buffer):
            digest.update(view[:read_nbytes])
            advance(read_nbytes)
        if file_stamp(os.fstat(descriptor)) != before:
            raise ModelError(f"{printable(path.name)} changed while it was read")
    return digest.hexdigest()


def hash_telling(path: Path, progress: Progress) -> str:
    """Return the sha256 of a file as `hash_file` does, and tell how far it is."""
    nbytes = LocalFolder(path.parent).nbytes(path.name)
    with counting(progress, f"Hashing {printable(path.name)}", nbytes) as advance:
        return hash_file(path, advance=advance)


def read_into(buffer: memoryview, descriptor: int, offset: int) -> bool:
    """Fill a buffer from an open file, and say whether the file had so many bytes."""
    done = 0
    while done < len(buffer):
        step = os.preadv(descriptor, [buffer[done:]], offset + done)
        if step == 0:
            return False
        done += step
    return True


@contextmanager
def opened(
    folder: Path, sources: Mapping[str, SourceFile] | None = None
) -> Iterator[Callable[[str], int]]:
    """Give a function from the name of a file in a folder to its descriptor; each is opened once.

    Args:
        folder: Where the files lie; an absolute path goes for a name too.
        sources: The files as their headers were read; each that is opened is compared with its
            stamp, before and after. None compares nothing.

    Raises:
        ModelError: A file is not regular, or not the one whose header was read.
    """
    descriptors: dict[str, int] = {}

    def check(name: str) -> None:
        if sources is not None and sources[name].stamp != file_stamp(os.fstat(descriptors[name])):
            raise ModelError(
                f"the input changed while it was read: {name}",
                hint="run again when nothing writes to it",
            )

    def descriptor_of(name: str) -> int:
        if name not in descriptors:
            descriptors[name] = open_regular(folder / name)
            check(name)
        return descriptors[name]

    try:
        yield descriptor_of
        for name in descriptors:
            check(name)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


# A model with none of these has no tokenizer.
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
SIDE_FILES = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "tekken.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
# What a file can be called in a folder of ours, and in a repository for it to be found there.
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,199}", re.ASCII)
# Templates beside chat_template.jinja; the one folder inside a model folder that belongs to it.
TEMPLATES = "additional_chat_templates"
_TEMPLATE_NAME = re.compile(rf"{TEMPLATES}/[A-Za-z0-9_][\w.-]{{0,99}}\.jinja", re.ASCII)
WEIGHTS_NAME = re.compile(r"[\w.-]+\.safetensors", re.ASCII)
# A commit of a repository on the Hub; a repository: org/name, or as the oldest ones without org.
COMMIT = re.compile(r"[0-9a-f]{40}")
REPO_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
REPO_NAME = re.compile(r"(\w[\w.-]{0,95}/)?\w[\w.-]{0,95}", re.ASCII)
# As mistral-common numbers its tokenizers of SentencePiece.
_NUMBERED_TOKENIZER = re.compile(r"tokenizer\.(mm\.)?model\.v\d\w*", re.ASCII)
# What learned growth made the tensors with; its name holds its hash.
LEARNED_MAPS = re.compile(r"learned_maps-[0-9a-f]{32}\.safetensors")
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY.md")


def side_files_of(folder: Path) -> list[str]:
    """Return the sorted names of the side files that lie in a model folder.

    Raises:
        ModelError: One is a link to nothing, or no plain file; or two of them are one on a file
            system without case.
    """
    names = sorted(
        name
        for name in (*os.listdir(folder), *_templates_in(folder))
        if is_side_file(name) and not (folder / name).is_dir()
    )
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(
                f"{printable(folder / name, 200)} is no file that can be read",
                hint="remove it, or put the file there that it links to",
            )
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise ModelError(
                f"{other} and {name} differ by case alone, which not every disk tells apart",
                hint="rename one of them",
            )
    return names


def _templates_in(folder: Path) -> list[str]:
    inside = folder / TEMPLATES
    if not inside.is_dir() or inside.is_symlink():
        return []
    return [f"{TEMPLATES}/{name}" for name in os.listdir(inside)]


def is_side_file(name: str) -> bool:
    """Say whether a file of a base model belongs to the grown model too.

    Tokenizer, chat templates, generation settings, licence texts and learned maps do; code, pickles
    and the base's own card do not.
    """
    return (
        name in SIDE_FILES
        or _NUMBERED_TOKENIZER.fullmatch(name) is not None
        or LEARNED_MAPS.fullmatch(name) is not None
        or _TEMPLATE_NAME.fullmatch(name) is not None
        or _is_licence_file(name)
    )


def is_file_of_a_model(path: str) -> bool:
    """Say whether a path in a repository is one of the names that hfgrow reads and writes."""
    return (PLAIN_NAME.fullmatch(path) or _TEMPLATE_NAME.fullmatch(path)) is not None


def _is_licence_file(name: str) -> bool:
    return (
        PLAIN_NAME.fullmatch(name) is not None
        and not name.endswith((".py", ".pkl", ".bin"))
        and any(fnmatch.fnmatchcase(name, pattern) for pattern in LICENCE_FILES)
    )


CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"
CARD = "README.md"
MANIFEST = "hfgrow.json"
PICTURE = "layers.svg"
WIDTHS_PICTURE = "widths.svg"
# The loss of a training, drawn where matplotlib is installed.
LOSS_PICTURE = "loss.png"
# The folder of the finished model in that of its run.
TRAINED = "final"
# What a run was begun with, in its folder: as it is compared, and as a recipe.
RUN = "run.json"
RECIPE = "recipe.yaml"
# Where the base lies on this machine; stays beside the model and is never pushed.
LOCAL_BASE = ".hfgrow-base"


def is_run(folder: Path) -> bool:
    """Say whether this is the folder of a run, and not that of a model."""
    return (folder / RUN).is_file() and not (folder / CONFIG).is_file()


def refuse_run(folder: Path) -> None:
    """Refuse the folder of a run; say where its model is, or how the run goes on to have one.

    Raises:
        UsageError: It is one.
    """
    if not is_run(folder):
        return
    shown, model = printable(folder, 200), folder / TRAINED
    if (model / CONFIG).is_file():
        where = printable(model, 200)
        raise UsageError(
            f"{shown} is the folder of a run; its model is {where}", hint=f"give {where}"
        )
    recipe = folder / RECIPE
    known = shlex.quote(printable(recipe, 200)) if recipe.is_file() else "RECIPE"
    raise UsageError(
        f"{shown} is the folder of a run that is not finished, so it has no model in {TRAINED} yet",
        hint=command(f"train {known}", resume=""),
    )
