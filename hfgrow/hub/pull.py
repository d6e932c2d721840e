"""A model's files from the Hub: read by range, or pulled whole and compared with checksums."""

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock

from hfgrow.checkpoint.files import (
    CARD,
    CONFIG,
    INDEX,
    LEARNED_MAPS,
    MANIFEST,
    SINGLE,
    WEIGHTS_NAME,
    is_side_file,
)
from hfgrow.checkpoint.strict import MAX_JSON_NBYTES, parse_json_object
from hfgrow.console import Progress, Silent, counting, size
from hfgrow.errors import (
    HubUnreachableError,
    ModelError,
    OutputError,
    VerificationError,
    argument,
    printable,
)
from hfgrow.hub.cache import forget, missing_from, repo_folder, snapshot_folder
from hfgrow.hub.client import TRANSFER_WAITS_S, HubClient
from hfgrow.hub.listing import ModelRef, RemoteFile
from hfgrow.hub.transfer import Arriving, telling

_CARD_AND_LINEAGE = frozenset({CARD, MANIFEST})
_MAX_NUM_SIDE_FILES = 100
_MAX_SIDE_NBYTES = 500 * 1000 * 1000
_CONVERTER = "https://huggingface.co/spaces/safetensors/convert"
_FORMATS = {
    ".bin": "PyTorch pickle",
    ".pt": "PyTorch pickle",
    ".pth": "PyTorch pickle",
    ".ckpt": "PyTorch pickle",
    ".gguf": "GGUF",
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".npz": "NumPy",
    ".onnx": "ONNX",
    ".safetensors": "safetensors under another name than model.safetensors",
}
_NUM_THREADS = 4


def pull(ref: ModelRef, client: HubClient, progress: Progress | None = None) -> Path:
    """Bring a pinned model into the cache and return the folder of its files.

    Args:
        ref: A model that `pin` has returned.
        client: The connection.
        progress: Told what is about to take long, and how far it is; None tells nobody.

    Raises:
        ModelError: The repository holds no weights in safetensors, or an ambiguous set of them.
        HubRefusedError: Access is refused.
        HubUnreachableError: No answer, or offline and not completely in the cache.
        OutputError: The cache has no room.
        VerificationError: A file is not the one that the Hub lists; it is removed from the cache.
    """
    progress = progress or Silent()
    small = _held(ref, side_files(ref), progress)
    if INDEX not in ref.files:
        return _fetch(ref, client, [*small, SINGLE], progress)
    folder = _fetch(ref, client, small, progress)
    return _fetch(ref, client, _shards(ref, folder), progress)


def _held(ref: ModelRef, names: Sequence[str], progress: Progress) -> list[str]:
    """Return the side files to read: offline those that the cache holds, and the rest is told.

    `from_pretrained` brings a config and weights into the cache, and neither tokenizer nor licence.
    """
    from huggingface_hub import is_offline_mode

    if not is_offline_mode():
        return list(names)
    absent = set(missing_from(snapshot_folder(ref), names)) - {CONFIG, INDEX}
    if absent:
        progress.say(
            f"Note: {', '.join(sorted(absent))} of {ref.label} is not in the cache, and offline "
            "mode is on: left out"
        )
    return [name for name in names if name not in absent]


def _refuse_partial(ref: ModelRef) -> None:
    """Refuse what the cache alone cannot give, where it does not know what else there is.

    Raises:
        HubUnreachableError: Offline, and the repository may hold more than the cache does.
    """
    from huggingface_hub import is_offline_mode

    folder = snapshot_folder(ref)
    if not is_offline_mode() or missing_from(folder, list(ref.files)):
        return
    absent = CONFIG if CONFIG not in ref.files else f"{SINGLE} or {INDEX}"
    raise HubUnreachableError(
        f"{absent} of {ref.label} is not in the cache, and offline mode is on",
        hint="unset HF_HUB_OFFLINE",
    )


def side_files(ref: ModelRef) -> list[str]:
    """Return the files to pull besides the weights, or refuse a model that cannot be grown.

    Raises:
        ModelError: There is no config or no safetensors: the message names what there is.
    """
    names = ref.files
    if SINGLE not in names and INDEX not in names:
        _refuse_partial(ref)
        raise _no_weights(ref)
    if CONFIG not in names:
        _refuse_partial(ref)
        raise ModelError(f"{ref.label} has no {CONFIG}, so it is no transformers model")
    chosen = [CONFIG] + [name for name in names if name in _CARD_AND_LINEAGE or is_side_file(name)]
    if INDEX in names:
        chosen.append(INDEX)
        if names[INDEX].nbytes > MAX_JSON_NBYTES:
            raise ModelError(f"{INDEX} of {ref.label} has {names[INDEX].nbytes} bytes: no real one")
    for name in chosen:
        if names[name].nbytes > _MAX_SIDE_NBYTES and not LEARNED_MAPS.fullmatch(name):
            raise ModelError(f"{name} of {ref.label} has {names[name].nbytes} bytes: no real one")
    if len(chosen) > _MAX_NUM_SIDE_FILES:
        raise ModelError(f"{ref.label} has {len(chosen)} tokenizer and licence files: no real one")
    return sorted(chosen)


def _shards(ref: ModelRef, folder: Path) -> list[str]:
    index = parse_json_object((folder / INDEX).read_bytes(), f"{INDEX} of {ref.label}")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{INDEX} of {ref.label} has no weight_map")
    shards = sorted({str(shard) for shard in weight_map.values()})
    for shard in shards:
        if not WEIGHTS_NAME.fullmatch(shard):
            raise ModelError(f"{INDEX} of {ref.label} names the file {printable(shard)!r}")
    if SINGLE in ref.files and SINGLE not in shards:
        raise ModelError(
            f"{ref.label} has both {SINGLE} and {INDEX}, which may be two different models",
            hint="pull it by hand, remove the wrong one, and give the folder",
        )
    if absent := [shard for shard in shards if shard not in ref.files]:
        raise ModelError(f"{ref.label} lacks {', '.join(absent)}, which {INDEX} names")
    return shards


def _no_weights(ref: ModelRef) -> ModelError:
    if "adapter_config.json" in ref.files:
        return ModelError(
            f"{ref.label} is an adapter (LoRA), not a model",
            hint="merge it into its base first: PeftModel.merge_and_unload, then save_pretrained",
        )
    suffixes = sorted({Path(name).suffix for name in ref.files} & _FORMATS.keys())
    if not suffixes:
        return ModelError(f"{ref.label} has no weights: neither {SINGLE} nor {INDEX}")
    found = ", ".join(f"{suffix} ({_FORMATS[suffix]})" for suffix in suffixes)
    return ModelError(
        f"{ref.label} has no {SINGLE}, only {found}; other formats are not read",
        hint=f"{_CONVERTER} opens a pull request with safetensors: then "
        f"{argument('revision', 'refs/pr/N')}",
    )


def _fetch(ref: ModelRef, client: HubClient, names: Sequence[str], progress: Progress) -> Path:
    from huggingface_hub import is_offline_mode

    assert ref.repo_id is not None
    assert ref.revision is not None
    repo_id, sha = ref.repo_id, ref.revision
    folder = snapshot_folder(ref)
    absent = missing_from(folder, names)
    if absent and is_offline_mode():
        raise HubUnreachableError(
            f"{', '.join(absent)} of {ref.label} is not in the cache, and offline mode is on",
            hint="unset HF_HUB_OFFLINE",
        )
    total = sum(ref.files[name].nbytes for name in absent)
    _check_room(total, folder)
    if absent:
        progress.say(f"downloading {len(absent)} files of {ref.label}, {size(total)}")

    def download() -> Path:
        found = client.api.snapshot_download(repo_id, revision=sha, allow_patterns=list(names))
        return Path(str(found))

    if absent:
        arriving = Arriving(repo_folder(repo_id) / "blobs", total)
        with telling(progress, f"Downloading {ref.label}", arriving):
            folder = client.ask(
                f"pulling {repo_id}",
                download,
                repo_id,
                waits_s=TRANSFER_WAITS_S,
                is_question=False,
            )
    if absent := missing_from(folder, names):
        raise HubUnreachableError(
            f"pulling {repo_id}: {', '.join(absent)} did not arrive", hint="run it again"
        )
    progress.say(f"comparing checksums of {len(names)} files")
    _compare(folder, {name: ref.files[name] for name in names}, ref.label, progress)
    return folder


def _check_room(needed_nbytes: int, folder: Path) -> None:
    existing = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed_nbytes > free:
        raise OutputError(
            f"the download needs {size(needed_nbytes)} and the cache has room for {size(free)}",
            hint="free space, or set HF_HOME to a larger disk",
        )


def _compare(folder: Path, expected: dict[str, RemoteFile], label: str, progress: Progress) -> None:
    total = sum(file.nbytes for file in expected.values())
    counted, is_over = Lock(), Event()
    with (
        counting(progress, f"Comparing checksums of {label}", total) as advance,
        ThreadPoolExecutor(_NUM_THREADS) as pool,
    ):

        def count(nbytes: int) -> None:
            if is_over.is_set():
                raise CancelledError
            # A bar is moved by one thread at a time.
            with counted:
                advance(nbytes)

        def compared(name: str) -> bool:
            return is_same(folder / name, expected[name], advance=count)

        try:
            same = list(pool.map(compared, expected))
        finally:
            # After an interrupt nobody waits until large files are read to their end.
            is_over.set()
    bad = [name for name, good in zip(expected, same, strict=True) if not good]
    for name in bad:
        forget(folder / name)
    if bad:
        raise VerificationError(
            f"{', '.join(bad)} of {label} is not what the Hub lists (checksum differs)",
            hint="run it again: the file was removed from the cache and will be fetched anew",
        )


def is_same(
    path: Path,
    remote: RemoteFile,
    sha256: str | None = None,
    advance: Callable[[int], None] = lambda nbytes: None,
) -> bool:
    """Compare a local file with what a listing says: size and SHA-256, or size and git id.

    Args:
        remote: What the listing says.
        sha256: That of the local file, if it is known.
        advance: Called with the number of bytes as they are read.
    """
    nbytes = path.stat().st_size
    if nbytes != remote.nbytes:
        return False
    if remote.sha256 is not None:
        return (sha256 or _digest(path, hashlib.sha256(), advance)) == remote.sha256
    if not remote.oid:
        return True
    git = hashlib.sha1(b"blob %d\0" % nbytes, usedforsecurity=False)
    return _digest(path, git, advance) == remote.oid


def _digest(path: Path, digest: "hashlib._Hash", advance: Callable[[int], None]) -> str:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RemoteFiles:
    """The files of one pinned commit, without a local folder.

    Args:
        ref: A model that `pin` has returned.
        client: The connection.
    """

    def __init__(self, ref: ModelRef, client: HubClient) -> None:
        assert ref.repo_id is not None
        assert ref.revision is not None
        self._repo_id = ref.repo_id
        self._sha = ref.revision
        self._files: Mapping[str, RemoteFile] = ref.files
        self._client = client

    @property
    def label(self) -> str:
        """The repository and the first digits of the commit."""
        return f"{self._repo_id}@{self._sha[:7]}"

    @property
    def folder(self) -> str:
        """Empty: nothing lies here."""
        return ""

    def names(self) -> list[str]:
        """Return the sorted names of the files at the top level."""
        return sorted(self._files)

    def nbytes(self, name: str) -> int:
        """Return the size of a file."""
        if name not in self._files:
            raise ModelError(f"{self.label} has no file {printable(name)}")
        return self._files[name].nbytes

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return nothing: a commit never changes."""
        return ()

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        """Return a range of a file.

        Raises:
            HubRefusedError: Access is refused.
            HubUnreachableError: No answer, or not the bytes that were asked for.
        """
        stop = min(start + nbytes, self.nbytes(name))
        if stop <= start:
            return b""
        what = f"reading {name} of {self.label}"
        return self._client.ask(what, lambda: self._fetch(name, start, stop, what), self._repo_id)

    def _fetch(self, name: str, start: int, stop: int, what: str) -> bytes:
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

        url = hf_hub_url(self._repo_id, name, revision=self._sha, endpoint=self._client.endpoint)
        # The session drops the token by itself when the Hub sends it on to its storage.
        headers = {
            **self._client.headers(),
            "Range": f"bytes={start}-{stop - 1}",
            "Accept-Encoding": "identity",
        }
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            size = self.nbytes(name)
            if response.status_code == 206:
                found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
                good = found is not None and int(found[1]) == start
                good = good and found is not None and found[3] in ("*", str(size))
            else:
                good = response.status_code == 200 and start == 0
            if not good:
                raise HubUnreachableError(f"{what}: the server did not send the range asked for")
            received = bytearray()
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) >= stop - start:
                    break
        if len(received) < stop - start:
            raise HubUnreachableError(
                f"{what}: the server sent {len(received)} bytes of {stop - start}"
            )
        return bytes(received[: stop - start])
