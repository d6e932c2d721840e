"""Verify a model on disk: headers, settings of generation, bytes against the base, transformers."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hfgrow.checkpoint.compute.chunks import Chunk, chunks, computed, in_threads, rows_of_files
from hfgrow.checkpoint.compute.recipe_rows import Evaluator
from hfgrow.checkpoint.files import GENERATION, LocalFolder, hash_telling, opened, read_into
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.strict import read_json_object
from hfgrow.console import Progress, counting, load, usual_progress
from hfgrow.errors import (
    ModelError,
    UsageError,
    VerificationError,
    command,
    install_command,
    listed,
    missing,
    printable,
    said,
)
from hfgrow.growth.behaviour import TRANSFORMERS, check_transformers_view, measure, rounding_of
from hfgrow.growth.loading import require_for
from hfgrow.growth.models import base_folder
from hfgrow.growth.reproduce import replay
from hfgrow.hub.client import HubClient
from hfgrow.lineage.manifest import Link, Manifest, TrainingLink
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.plan import GrowthPlan, TensorPlan, is_zero, stored_in
from hfgrow.plan.promise import Measured, check_promise, may_be_rounding
from hfgrow.plan.tensors import Stored, leaves, predictor_of

# Chosen to fit the cache of a core.
_CHUNK_NBYTES = 512 << 10
_NUM_READERS = 4

# A descriptor, and where in its file a tensor begins.
_Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Provenance:
    """The outcome of a comparison of every tensor with its source."""

    num_tensors: int
    num_computed: int
    nbytes: int


def check_headers(folder: Path, plan: GrowthPlan) -> GrowthPlan:
    """Compare what lies in a folder with the plan it was written from; no weight is read.

    Returns:
        The plan of the folder as the strict reader sees it.

    Raises:
        VerificationError: A tensor, a shape, a dtype or a config value differs.
    """
    try:
        found = read(LocalFolder(folder))
    except ModelError as error:
        raise VerificationError(f"the written model cannot be read back: {error}") from error
    for name in plan.tensors.keys() | found.tensors.keys():
        planned, written = plan.tensors.get(name), found.tensors.get(name)
        if planned is None or written is None:
            where = "written but not planned" if planned is None else "planned but not written"
            raise VerificationError(f"{printable(name)} was {where}")
        if (planned.shape, planned.dtype) != (written.shape, written.dtype):
            raise VerificationError(
                f"{printable(name)} is {written.dtype} {list(written.shape)}, "
                f"planned was {planned.dtype} {list(planned.shape)}"
            )
    for key in plan.config.keys() | found.config.keys():
        if key != "hfgrow" and plan.config.get(key) != found.config.get(key):
            raise VerificationError(
                f"config.json: {printable(key)} is {printable(repr(found.config.get(key)))}, "
                f"planned was {printable(repr(plan.config.get(key)))}"
            )
    return found


def settle_generation(folder: Path, progress: Progress, *, ask_transformers: bool) -> None:
    """Leave out the settings of generation if they would stop the model from loading.

    Args:
        folder: The grown model, which is not published yet.
        progress: Told if they are left out, and why.
        ask_transformers: Whether transformers loads them too.
    """
    if not (folder / GENERATION).is_file():
        return
    fault = _fault(folder, ask_transformers=ask_transformers)
    if fault:
        (folder / GENERATION).unlink()
        progress.say(f"Note: {GENERATION} of the base was left out: {fault}")


def check_generation(folder: Path, progress: Progress) -> None:
    """Refuse settings of generation that would stop a model from loading; none are fine.

    Args:
        folder: The model.
        progress: Told where transformers is loaded to look at them.

    Raises:
        ModelError: They would.
    """
    if not (folder / GENERATION).is_file():
        return
    asked = not missing(*TRANSFORMERS)
    if asked:
        # Its class of settings needs no torch.
        load(progress, "transformers")
    if fault := _fault(folder, ask_transformers=asked):
        raise ModelError(
            fault if GENERATION in fault else f"{GENERATION}: {fault}",
            hint="correct it, or remove it",
        )


def _fault(folder: Path, *, ask_transformers: bool) -> str:
    try:
        read_json_object(LocalFolder(folder), GENERATION)
    except ModelError as error:
        return str(error)
    if not ask_transformers:
        return ""
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        return f"transformers refuses it: {said(error)}"
    return ""


def check_provenance(
    folder: Path, plan: GrowthPlan, *, advance: Callable[[int], None] = lambda nbytes: None
) -> Provenance:
    """Derive every tensor again from base and plan and compare it with what lies in a folder.

    Args:
        folder: The grown model.
        plan: The plan, made again from the base.
        advance: Called with the number of bytes as they are compared.

    Raises:
        VerificationError: A tensor differs from its source.
        ModelError: A file changed meanwhile.
    """
    found = check_headers(folder, plan)
    with (
        opened(Path(plan.folder), plan.files) as base_file,
        opened(folder, found.files) as grown_file,
    ):
        _check_copied(plan, found, base_file, grown_file, advance)
        to_compute = {name: t for name, t in plan.tensors.items() if not t.is_copy}
        _check_computed(to_compute, found, base_file, grown_file, advance)
    return Provenance(len(plan.tensors), len(to_compute), plan.nbytes)


def _check_copied(
    plan: GrowthPlan,
    found: GrowthPlan,
    base_file: Callable[[str], int],
    grown_file: Callable[[str], int],
    advance: Callable[[int], None],
) -> None:
    """Compare copies with what they are copies of, which is read once for all of them."""
    copies: dict[Stored, list[str]] = {}
    for name, planned in plan.tensors.items():
        if isinstance(planned.recipe, Stored) and planned.is_copy:
            copies.setdefault(planned.recipe, []).append(name)
    work = []
    for source, names in copies.items():
        written = [stored_in(found.tensors[name]) for name in names]
        ranges = [(grown_file(each.file), each.offset) for each in written]
        work.append((names, ranges, base_file(source.file), source.offset, written[0].nbytes))

    def compare(names: list[str], ranges: list[_Range], *source: int) -> int:
        other = _first_other(ranges, *source)
        if other is not None:
            raise _differs(names[other], plan.tensors[names[other]])
        return len(names) * source[-1]

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        futures = [pool.submit(compare, *piece) for piece in work]
        try:
            for future in futures:
                advance(future.result())
        finally:
            for future in futures:
                future.cancel()


def _first_other(ranges: Sequence[_Range], source: int, offset: int, nbytes: int) -> int | None:
    """Return which range does not hold the bytes of the source, if one does not."""
    for at in range(0, nbytes, _CHUNK_NBYTES):
        step = min(_CHUNK_NBYTES, nbytes - at)
        # Views of bytes are compared one by one, bytes themselves at once.
        one, two = bytearray(step), bytearray(step)
        is_whole = read_into(memoryview(one), source, offset + at)
        for i, (target, start) in enumerate(ranges):
            if not (is_whole and read_into(memoryview(two), target, start + at) and one == two):
                return i
    return None


def _check_computed(
    tensors: Mapping[str, TensorPlan],
    found: GrowthPlan,
    base_file: Callable[[str], int],
    grown_file: Callable[[str], int],
    advance: Callable[[int], None],
) -> None:
    """Compute tensors again and compare; zeros need no numpy."""
    work = []
    for name, planned in sorted(tensors.items(), key=lambda item: predictor_of(item[1].recipe)):
        written = stored_in(found.tensors[name])
        target = grown_file(written.file)
        if is_zero(planned):
            if not _all_zero(target, written.offset, written.nbytes):
                raise _differs(name, planned)
            advance(planned.nbytes)
            continue
        for leaf in leaves(planned.recipe):
            base_file(leaf.file)
        work += [(chunk, target, written.offset) for chunk in chunks(name, planned)]
    if not work:
        return
    evaluator = Evaluator(rows_of_files(base_file))

    def compare(chunk: Chunk, target: int, offset: int) -> int:
        content = computed(chunk, evaluator)
        for at in chunk.offsets:
            written = bytearray(chunk.nbytes)
            if not read_into(memoryview(written), target, offset + at) or written != content:
                raise _differs(chunk.name, chunk.tensor)
        return chunk.nbytes * chunk.num_repeats

    for nbytes in in_threads(partial(compare, *piece) for piece in work):
        advance(nbytes)


def _all_zero(target: int, offset: int, nbytes: int) -> bool:
    for at in range(0, nbytes, _CHUNK_NBYTES):
        written = bytearray(min(_CHUNK_NBYTES, nbytes - at))
        if not read_into(memoryview(written), target, offset + at) or written.count(0) != len(
            written
        ):
            return False
    return True


def _differs(name: str, planned: TensorPlan) -> VerificationError:
    sources = ", ".join(dict.fromkeys(leaf.name for leaf in leaves(planned.recipe)))
    made_from = sources if planned.is_copy else f"what the plan makes of {sources}"
    wanted = f"{printable(made_from)} of the base" if sources else "what was planned"
    recorded = command("card FOLDER", trained_elsewhere="NOTE")
    hint = f"the model was changed after it was grown ({recorded} records a training by another "
    hint += "program), or the base is another one"
    if predictor_of(planned.recipe):
        hint += ", or another machine or another version of torch computed it"
    return VerificationError(
        f"{printable(name)} differs from {wanted}",
        hint=hint,
    )


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of a verification: all of it held, else an error was raised.

    Attributes:
        manifest: The model's lineage.
        provenance: Every tensor compared with its source, byte for byte; None of a model that was
            trained, whose weight files are those that its training recorded.
        num_transformers_tensors: The tensors that transformers expects, and finds; None if it is
            not installed.
        measured: Logits and loss of base and grown model; None without transformers.
    """

    manifest: Manifest
    provenance: Provenance | None
    num_transformers_tensors: int | None = None
    measured: Measured | None = None

    def __repr__(self) -> str:
        found = self.provenance
        held = f"{found.num_tensors} tensors" if found else f"{len(self.manifest.files)} files"
        measured = f"; {self.measured}" if self.measured else ""
        return f"Verified({self.manifest.link.result.name}: {held}{measured})"


def verify(
    folder: str | Path,
    client: HubClient | None = None,
    progress: Progress | None = None,
    *,
    base: str | None = None,
    text: str | None = None,
) -> Verified:
    """Verify a grown model against its base, or a trained one against its record.

    Args:
        folder: The grown model.
        client: For a base that lies on the Hub; None takes the default one.
        progress: Told how it goes on; None tells nobody.
        base: The base, if it is not where hfgrow.json says.
        text: The probe text; None takes the one shipped with hfgrow.

    Raises:
        VerificationError: A tensor differs from its source, a file from its record, transformers
            disagrees, or a growth that promises the same function does not keep it within the
            dtype's tolerance.
        ModelError: There is no lineage, or the base is not to be found.
        UsageError: Tensors have to be computed, and what computes them is not installed; or a base
            or a text is given for a trained model.
    """
    folder, client, progress = Path(folder), client or HubClient(), progress or usual_progress()
    manifest = manifest_of(LocalFolder(folder))
    if isinstance(manifest.link, TrainingLink) or manifest.trained_since:
        if base is not None or text is not None:
            raise UsageError("a trained model is compared with its record, not with a base or text")
        return _verify_trained(folder, manifest, progress)
    growth = manifest.growth
    try:
        found = base_folder(folder, manifest, base, client, progress)
    except ModelError:
        _check_sizes(folder, manifest)
        raise
    plan = plan_again(folder, found, growth, progress)
    provenance = compare_bytes(folder, plan, progress)
    absent = missing(*TRANSFORMERS)
    if absent:
        progress.say(f"Note: transformers' view and the logits need {listed(absent)}")
        progress.say(f"Hint: {install_command()}")
        return Verified(manifest, provenance)
    num_tensors, measured = compare_in_transformers(found, folder, plan, progress, text=text)
    return Verified(manifest, provenance, num_tensors, measured)


def plan_again(folder: Path, base: Path, growth: Link, progress: Progress) -> GrowthPlan:
    """Return the plan of a recorded growth, made again from the headers of its base.

    Args:
        folder: The grown model, with the maps of learned steps.
        base: The folder of the base.
        growth: The record.
        progress: Told how it goes on.

    Raises:
        ModelError: The base cannot be read, or grows otherwise.
        UsageError: What computes its tensors is not installed.
        VerificationError: The record makes another promise than the operator.
    """
    plan = replay(read(LocalFolder(base), progress), growth, folder)
    require_for(plan)
    return plan


def compare_bytes(folder: Path, plan: GrowthPlan, progress: Progress) -> Provenance:
    """Compare every tensor of a grown model with what its plan makes of the base, with a bar.

    Raises:
        VerificationError: A tensor differs from its source, or config.json from the plan.
    """
    with counting(progress, "Comparing bytes", plan.nbytes) as advance:
        try:
            return check_provenance(folder, plan, advance=advance)
        except VerificationError as error:
            how = command(f"lineage {shlex.quote(printable(folder, 200))}")
            error.hint = error.hint or f"changed after it was grown? {how} says how to grow it anew"
            raise


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    """Find without the base what sizes tell: another program saved the weights since."""
    if found := of_another_size(folder, manifest):
        name, nbytes = found
        raise VerificationError(
            f"{printable(name)} has {nbytes} bytes, its growth recorded "
            f"{manifest.files[name].nbytes}",
            hint="it was saved again since: "
            + command("card FOLDER", trained_elsewhere="NOTE")
            + " records a training by another program",
        )


def of_another_size(folder: Path, manifest: Manifest) -> tuple[str, int] | None:
    """Return the first weight file whose size is not the recorded one, and its size; or None.

    Raises:
        ModelError: A file is missing.
    """
    sizes = ((name, LocalFolder(folder).nbytes(name)) for name in manifest.files)
    return next((one for one in sizes if one[1] != manifest.files[one[0]].nbytes), None)


def _verify_trained(folder: Path, manifest: Manifest, progress: Progress) -> Verified:
    found = read(LocalFolder(folder), progress).files
    recorded = manifest.files
    if found.keys() != recorded.keys():
        odd = sorted(found.keys() ^ recorded.keys())[0]
        raise VerificationError(f"{printable(odd)} is not among the files that both have")
    for name, file in recorded.items():
        digest = hash_telling(folder / name, progress)
        if file.sha256 is None or digest != file.sha256:
            raise VerificationError(
                f"{printable(name)} has sha256 {digest}, its training recorded {file.sha256}",
                hint="it was changed since; what it came from is still recorded",
            )
    if absent := missing(*TRANSFORMERS):
        progress.say(f"Note: transformers' view needs {listed(absent)}")
        progress.say(f"Hint: {install_command()}")
        return Verified(manifest, None)
    load(progress)
    return Verified(manifest, None, check_transformers_view(folder))


def compare_in_transformers(
    base: Path,
    grown: Path,
    plan: GrowthPlan,
    progress: Progress,
    *,
    text: str | None = None,
    can_measure: bool = True,
) -> tuple[int, Measured | None]:
    """Have transformers look at a grown model, measure it beside its base, and hold it to the plan.

    Args:
        base: Folder of the base.
        grown: Folder of the grown model.
        plan: What it was grown by, and so what it promises.
        text: The probe text; None takes the one shipped with hfgrow.
        can_measure: Whether the numbers of the base allow logits.

    Returns:
        The number of tensors that transformers expects and finds; what was measured, if it was.

    Raises:
        VerificationError: transformers disagrees, or the promise of the plan is not kept.
        ModelError: The base is to blame.
    """
    load(progress)
    num_tensors = check_transformers_view(grown, base)
    measured = measure(base, grown, progress, text) if can_measure else None
    if measured is not None and plan.preserves_function:
        if may_be_rounding(measured):
            measured = replace(measured, rounding=rounding_of(base, grown, progress, text))
        check_promise(measured)
    return num_tensors, measured
