"""One reading of a base for all that has to be known of its bytes, beside other work.

That is the sha256 of its files, and whether every number is one. What writes from the same files
meanwhile finds them in memory, or leaves them there.
"""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from hfgrow.checkpoint.compute.chunks import not_finite
from hfgrow.checkpoint.compute.dtypes import count_nonfinite
from hfgrow.checkpoint.files import opened, read_into
from hfgrow.checkpoint.locks import undisturbed
from hfgrow.console import Progress, counting
from hfgrow.errors import ModelError
from hfgrow.plan.plan import GrowthPlan, stored_in
from hfgrow.plan.tensors import Stored

_READ_NBYTES = 4 << 20
_PATIENCE_S = 0.2


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look has found.

    Attributes:
        sha256: File -> hash, of those that were asked for.
        not_finite: What is wrong with numbers that are none; None if nothing is, or nobody asked.
    """

    sha256: Mapping[str, str]
    not_finite: ModelError | None = None


class Look:
    """A look at a checkpoint, which somebody else may have a thread for.

    Args:
        base: What `read` returned for it.
        hashes: The files whose sha256 is wanted.
        finite: Whether to look for NaN and infinity.
        in_vain: Whether everything else is in vain where there are some: `check` says so at once.
    """

    def __init__(
        self,
        base: GrowthPlan,
        hashes: Collection[str],
        *,
        finite: bool,
        in_vain: bool = False,
    ) -> None:
        self._base = base
        self._hashes = hashes
        self._finite = finite
        self._in_vain = in_vain
        self._not_finite: ModelError | None = None
        self._tensors: dict[str, list[Stored]] = {name: [] for name in base.files}
        for stored in map(stored_in, base.tensors.values()):
            self._tensors[stored.file].append(stored)
        self._read_nbytes = 0
        self._is_over = False
        self._future: Future[Seen] | None = None

    @contextmanager
    def beside(self) -> Iterator["Look"]:
        """Look while the block goes on; what is not seen when it ends is left."""
        with ThreadPoolExecutor(1) as pool:
            # The thread keeps signals off, as it begins: a block that wants to end undisturbed may.
            with undisturbed():
                self._future = pool.submit(self._look)
            try:
                yield self
            finally:
                self._is_over = True

    def check(self) -> None:
        """Raise what has gone wrong so far; for those who would go on in vain."""
        assert self._future is not None
        if self._future.done():
            self._future.result()
        if self._in_vain and self._not_finite is not None:
            raise self._not_finite

    def result(self, progress: Progress) -> Seen:
        """Return what was found, once everything has been read.

        Raises:
            ModelError: The base changed meanwhile.
        """
        assert self._future is not None
        if not self._future.done():
            total = sum(nbytes for name in self._base.files for _, nbytes, _ in self._ranges(name))
            told = 0
            with counting(progress, "Reading the base", total) as advance:
                while wait([self._future], _PATIENCE_S).not_done:
                    before, told = told, self._read_nbytes
                    advance(told - before)
        return self._future.result()

    def _look(self) -> Seen:
        found: dict[str, str] = {}
        bad: dict[Stored, int] = {}
        buffer = memoryview(bytearray(_READ_NBYTES))
        with opened(Path(self._base.folder), self._base.files) as descriptor_of:
            for name in self._base.files:
                digest = sha256()
                for start, nbytes, stored in self._ranges(name):
                    for at in range(0, nbytes, _READ_NBYTES):
                        if self._is_over:
                            return Seen({})
                        piece = buffer[: nbytes - at]
                        if not read_into(piece, descriptor_of(name), start + at):
                            raise ModelError(f"the input changed while it was read: {name}")
                        if name in self._hashes:
                            digest.update(piece)
                        if stored is not None and self._finite:
                            num_bad = count_nonfinite(piece, stored.dtype)
                            bad |= {stored: bad.get(stored, 0) + num_bad} if num_bad else {}
                        self._read_nbytes += len(piece)
                    if stored in bad and self._not_finite is None:
                        self._not_finite = not_finite(stored, bad[stored])
                if name in self._hashes:
                    found[name] = digest.hexdigest()
        error = not_finite(*next(iter(bad.items())), num_others=len(bad) - 1) if bad else None
        return Seen(found, error)

    def _ranges(self, name: str) -> Iterator[tuple[int, int, Stored | None]]:
        """Yield what has to be read of a file, in order: start, size, and the tensor if it is one.

        Only a hash wants what is no tensor of the plan, such as the header.
        """
        at = 0
        for stored in sorted(self._tensors[name], key=lambda stored: stored.offset):
            if name in self._hashes:
                yield at, stored.offset - at, None
            if name in self._hashes or self._finite:
                yield stored.offset, stored.nbytes, stored
            at = stored.offset + stored.nbytes
        if name in self._hashes:
            yield at, self._base.files[name].nbytes - at, None
