"""The bytes of a new file as pages of memory: filled in any order, each written when it is full.

A few pages go round. Whoever fills them, on however many threads, waits for memory and never for
the disk; two threads write, and one more takes the sha256 of the file in its order. What is in
place already, because blocks are shared or are a hole, belongs to no page.
"""

import mmap
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Condition, Thread
from types import MappingProxyType, TracebackType

from hfgrow.checkpoint.files import read_into
from hfgrow.checkpoint.header import BLOCK_NBYTES
from hfgrow.checkpoint.locks import undisturbed
from hfgrow.checkpoint.output import OutputFile
from hfgrow.errors import ModelError

# Two writes at a time keep a disk busy, if each is large.
_NUM_WRITERS = 2
DIRECT_PAGE_NBYTES = 8 << 20
# Plain writing copies from the page, which should still be in the processor's cache.
PLAIN_PAGE_NBYTES = 1 << 20
# So much is in pages at a time, unless those that wait for more bytes alone take more.
_MEMORY_NBYTES = 64 << 20
_READ_NBYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class InPlace:
    """A range of the file that needs no page.

    Attributes:
        start: Where it begins.
        stop: Where it ends.
        source: An open file with the same bytes; None for zeros.
        source_offset: Where they begin there.
    """

    start: int
    stop: int
    source: int | None = None
    source_offset: int = 0


@dataclass(slots=True, eq=False)
class _Page:
    """A range of the file: how many bytes it lacks, and who is not done with its memory."""

    start: int
    stop: int
    missing: int
    memory: mmap.mmap | None = None
    num_users: int = 0

    @property
    def content(self) -> memoryview:
        assert self.memory is not None
        return memoryview(self.memory)[: self.stop - self.start]


class Pages:
    """The pages of one file, inside a `with` block.

    Args:
        output: The file.
        nbytes: Its size.
        in_place: What needs no page, in order.
        cuts: Where a page begins whatever happens, and how large it and its followers are: one that
            is filled at another time than its neighbours would wait for them.
        advance: Called by `report` with the number of bytes that were written since, or with
            `is_hashed` what was hashed of those in place.
        uncounted_nbytes: So many bytes, those of the header, are not reported.
        is_hashed: Whether to take the sha256. Then pages are filled about in order.

    Raises:
        OSError: The file cannot take the bytes. Said by whatever method is called next.
        ModelError: What is in place was changed in its source.
    """

    def __init__(
        self,
        output: OutputFile,
        nbytes: int,
        in_place: Sequence[InPlace] = (),
        cuts: Mapping[int, int] = MappingProxyType({}),
        *,
        advance: Callable[[int], None] = lambda nbytes: None,
        uncounted_nbytes: int = 0,
        is_hashed: bool = False,
    ) -> None:
        self._output = output
        self._in_place = in_place
        page_nbytes = DIRECT_PAGE_NBYTES if output.is_direct else PLAIN_PAGE_NBYTES
        self._pages = list(_cut(nbytes, page_nbytes, in_place, cuts))
        self._starts = [page.start for page in self._pages]
        self._advance = advance
        self._changed = Condition()
        self._free: list[mmap.mmap] = []
        self._page_nbytes = page_nbytes
        self._memory_nbytes = 0
        self._full: deque[_Page] = deque()
        # Pages that somebody is at work on, and the hash.
        self._num_busy = int(is_hashed)
        self._num_hashed = 0
        self._written_nbytes = -uncounted_nbytes
        self._is_over = False
        self._error: BaseException | None = None
        self._digest = sha256() if is_hashed else None
        work = [self._write_pages] * _NUM_WRITERS + [self._hash_file] * is_hashed
        self._threads = [Thread(target=self._guarded, args=(each,), daemon=True) for each in work]

    def __enter__(self) -> "Pages":
        try:
            with undisturbed():
                for thread in self._threads:
                    thread.start()
        except BaseException as error:
            self._end(error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as other:
            error = other
            raise
        finally:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        # The threads use descriptors that are closed next.
        with undisturbed():
            with self._changed:
                self._is_over = True
                self._error = self._error or error
                self._changed.notify_all()
            for thread in self._threads:
                if thread.is_alive():
                    thread.join()

    @property
    def sha256(self) -> str | None:
        """The hash of the whole file, once the block has ended; None if nobody asked for it."""
        return self._digest.hexdigest() if self._digest else None

    def room(self, offset: int, nbytes: int) -> Iterator[tuple[int, memoryview]]:
        """Yield the memory of a range of the file, piece by piece.

        A piece has to be filled when the next one is asked for. What is in place is left out.

        Yields:
            Where a piece starts, counted from `offset`, and its memory.
        """
        stop = offset + nbytes
        for i in range(max(0, bisect_right(self._starts, offset) - 1), len(self._pages)):
            page = self._pages[i]
            if page.start >= stop:
                break
            start, end = max(offset, page.start), min(stop, page.stop)
            if start < end:
                memory = self._memory_of(page)
                yield start - offset, memory[start - page.start : end - page.start]
                self._filled(page, end - start)

    def report(self) -> None:
        """Say how much was written since the last call; in the thread that may draw a bar."""
        with self._changed:
            nbytes = max(0, self._written_nbytes)
            self._written_nbytes -= nbytes
        if nbytes:
            self._advance(nbytes)

    def fail(self, error: BaseException) -> None:
        """End all waiting, for what will not be filled any more."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _memory_of(self, page: _Page) -> memoryview:
        with self._changed:
            self._changed.wait_for(lambda: self._error or page.memory or self._may_take(page))
            self._raise()
            if page.memory is None:
                # All but single blocks take memory of one size, which goes round.
                is_block = page.stop - page.start <= BLOCK_NBYTES
                nbytes = BLOCK_NBYTES if is_block else self._page_nbytes
                is_kept = self._free and not is_block
                page.memory = self._free.pop() if is_kept else mmap.mmap(-1, nbytes)
                self._memory_nbytes += nbytes
            return page.content

    def _may_take(self, page: _Page) -> bool:
        """Say whether a page gets memory now; one that others wait for gets it in any case."""
        return self._memory_nbytes + page.stop - page.start <= _MEMORY_NBYTES or (
            not self._num_busy if self._digest is None else self._is_next(page)
        )

    def _is_next(self, page: _Page) -> bool:
        return page is self._pages[self._num_hashed]

    def _filled(self, page: _Page, nbytes: int) -> None:
        with self._changed:
            page.missing -= nbytes
            if not page.missing:
                page.num_users = 1 + (self._digest is not None)
                self._num_busy += 1
                self._full.append(page)
                self._changed.notify_all()

    def _done_with(self, page: _Page, written_nbytes: int) -> None:
        with self._changed:
            self._written_nbytes += written_nbytes
            page.num_users -= 1
            if not page.num_users:
                self._num_busy -= 1
                memory, page.memory = page.memory, None
                assert memory is not None
                self._memory_nbytes -= len(memory)
                if len(memory) == self._page_nbytes:
                    self._free.append(memory)
            self._changed.notify_all()

    def _write_pages(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._full or self._is_over or self._error)
                if self._error or not self._full:
                    return
                page = self._full.popleft()
            self._output.write(page.content, page.start)
            self._done_with(page, page.stop - page.start)

    def _hash_file(self) -> None:
        assert self._digest is not None
        parts: list[_Page | InPlace] = [*self._pages, *self._in_place]
        for part in sorted(parts, key=lambda part: part.start):
            if isinstance(part, InPlace):
                for piece in self._content_of(part):
                    self._digest.update(piece)
                    self._count(len(piece))
                continue
            if not self._is_filled(part):
                return
            self._digest.update(part.content)
            self._num_hashed += 1
            self._done_with(part, 0)
        with self._changed:
            self._num_busy -= 1
            self._changed.notify_all()

    def _count(self, nbytes: int) -> None:
        with self._changed:
            self._written_nbytes += nbytes
            self._changed.notify_all()

    def _is_filled(self, page: _Page) -> bool:
        """Wait until a page is full; False if that will never be."""
        with self._changed:
            self._changed.wait_for(lambda: not page.missing or self._error)
            return not self._error

    def _content_of(self, part: InPlace) -> Iterator[memoryview]:
        """Yield the bytes of what is in place, from its source or as zeros."""
        buffer = memoryview(bytearray(min(part.stop - part.start, _READ_NBYTES)))
        for at in range(part.start, part.stop, _READ_NBYTES):
            if self._error:
                return
            piece = buffer[: part.stop - at]
            if part.source is not None:
                fill(piece, part.source, part.source_offset + at - part.start)
            yield piece

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.fail(error)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _finish(self) -> None:
        """Wait until everything is written, and go on reporting."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._error or self._written_nbytes > 0 or not self._num_busy
                )
                self._raise()
                is_done = not self._num_busy
            self.report()
            if is_done:
                break
        assert not any(page.missing for page in self._pages), "a page was never filled"


def fill(buffer: memoryview, source: int, offset: int) -> None:
    """Fill a buffer with bytes of an open file of the base.

    Raises:
        ModelError: The file ended early: somebody changed it.
    """
    if not read_into(buffer, source, offset):
        raise ModelError(
            "the input changed while it was read: a weight file ended early",
            hint="run again when nothing writes to the base",
        )


def _cut(
    nbytes: int,
    page_nbytes: int,
    in_place: Sequence[InPlace],
    cuts: Mapping[int, int],
) -> Iterator[_Page]:
    """Part what is not in place into pages."""
    start, wanted = 0, page_nbytes
    later = deque(sorted(cuts.items()))
    for gap in (*in_place, InPlace(nbytes, nbytes)):
        while start < gap.start:
            while later and later[0][0] <= start:
                wanted = min(page_nbytes, later.popleft()[1])
            stop = min(start + wanted, gap.start, later[0][0] if later else nbytes)
            yield _Page(start, stop, stop - start)
            start = stop
        start = gap.stop


def up(nbytes: int) -> int:
    """Round up to whole blocks."""
    return -down(-nbytes)


def down(nbytes: int) -> int:
    """Round down to whole blocks."""
    return nbytes // BLOCK_NBYTES * BLOCK_NBYTES
