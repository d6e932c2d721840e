"""Take a growth back: the base out of the grown model, where only what was added has been trained.

Source: Adila et al. 2026, "Grow, Don't Overwrite: Fine-tuning Without Forgetting",
https://arxiv.org/abs/2603.08647 (learn in added units); Wu et al. 2024, "LLaMA Pro",
https://arxiv.org/abs/2401.02415 (or in added layers). Here the old model is still in the new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hfgrow.checkpoint.files import MANIFEST, SINGLE, LocalFolder, hash_telling
from hfgrow.checkpoint.header import build_header
from hfgrow.checkpoint.layout import Layout, Placed, Shard
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target, staged
from hfgrow.checkpoint.write import check_free_space, config_with, write, write_texts
from hfgrow.console import Progress, counting, usual_progress
from hfgrow.errors import ModelError, VerificationError, argument, printable
from hfgrow.growth.loading import require_for
from hfgrow.growth.models import base_at_hand
from hfgrow.growth.publish import describes, hashed
from hfgrow.growth.recorded import becomes_mixture, recorded_base, recorded_base_of_derived
from hfgrow.growth.reproduce import replay
from hfgrow.growth.verify import check_headers, check_provenance
from hfgrow.lineage.card import card_files
from hfgrow.lineage.manifest import Link, Manifest, WeightFile, config_record
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.plan import GrowthPlan, with_dtype
from hfgrow.plan.tensors import CONFIG_DTYPES, DTYPE_NBYTES
from hfgrow.plan.undo import undone

# What says nothing of the architecture.
_DTYPES = ("dtype", "torch_dtype")
_ASIDE = ("hfgrow", *_DTYPES, "transformers_version")
# What a stage may have trained: `new` is what the growth added.
_NEW = "new"


@dataclass(frozen=True, slots=True)
class Ungrown:
    """A growth that was taken back.

    Attributes:
        out: The folder of the base.
        link: The growth.
        num_parameters: Of the base.
        nbytes: Of its weight file.
        sha256: Of its weight file.
        unproved: Why nothing could be compared; empty if the sha256 is that of the base, or every
            tensor is.
        beside: The folder of a base whose file lies otherwise, with which every tensor was
            compared; None if the sha256 was, or nothing.
    """

    out: Path
    link: Link
    num_parameters: int
    nbytes: int
    sha256: str
    unproved: str
    beside: Path | None = None


def ungrow(
    folder: str | Path,
    out: str | Path | None = None,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
) -> Ungrown:
    """Write the base of a model's last growth, from the model and its lineage alone.

    Args:
        folder: The grown model, trained since or not.
        out: The folder to make; None is the name of the model with `-ungrown` behind it.
        progress: Told how it goes on; None tells nobody.
        overwrite: Whether an existing output may be replaced.

    Raises:
        ModelError: There is no growth, old weights were trained, or the growth rounds.
        VerificationError: What came out is not the base, so that old weights have moved.
        OutputError: It cannot be written.
    """
    progress, folder = progress or usual_progress(), Path(folder).expanduser()
    files = LocalFolder(folder)
    manifest = manifest_of(files)
    position, link = _last_growth(manifest)
    out = Path(f"{folder.absolute().name}-ungrown" if out is None else out).expanduser()
    check_target(out, folder, overwrite=overwrite)
    found = read(files, progress)
    if becomes_mixture(link):
        raise ModelError("experts are another family than the base, and are not taken back")
    dtypes = {tensor.dtype for tensor in found.tensors.values()}
    if found.derived is None:
        base = recorded_base(found.config, link, min(dtypes))
    else:
        base = recorded_base_of_derived(found, link)
    grown = replay(base, link, is_draft=True)
    _check_same(grown, found)
    plan = undone(base, grown, found)
    plan, unproved = _as_it_lay(plan, link.base.files)
    wanted = link.base.files[SINGLE].sha256 if SINGLE in link.base.files else None
    there = base_at_hand(folder, link.base) if unproved else None
    beside = None
    if there is not None and unproved == _NO_HASH:
        wanted, unproved = hash_telling(there / SINGLE, progress), ""
    elif there is not None:
        beside, unproved = read(LocalFolder(there), progress), ""
        for note in beside.notes:
            progress.say(f"Note: of the base {note}")
        plan = _in_dtypes_of(plan, beside)
    if unproved:
        _check_record(manifest, folder, found, progress, unproved)
    earlier = manifest.chain[:position]
    config = {key: value for key, value in plan.config.items() if key != "hfgrow"}
    if earlier:
        config = config_with(config, config_record(earlier[-1]))
    plan = replace(plan, config=config)
    require_for(plan)
    layout = _layout(plan)
    check_free_space(plan, layout, out)
    with staged(out, overwrite=overwrite) as staging:
        with counting(progress, f"Writing {printable(out.name)}", layout.nbytes) as advance:
            digest = write(plan, layout, staging, hashes=True, advance=advance).sha256[SINGLE]
        check_headers(staging, plan)
        if beside is not None:
            with counting(progress, "Comparing with the base", plan.nbytes) as advance:
                check_provenance(staging, replace(beside, config=plan.config), advance=advance)
        elif not unproved and digest != wanted:
            raise VerificationError(
                f"{SINGLE} came out with sha256 {digest}, that of the base is {wanted}: old "
                "weights have moved since growth, or were rounded, or the base's tensors lay in "
                "another order",
                hint="train only what a growth added, trainable: new, and write the model in the "
                "dtype that it was grown in: dtype: float32 where it was trained before",
            )
        if earlier:
            before = Manifest(earlier, root_compute=manifest.root_compute)
            write_texts(staging, {MANIFEST: before.to_json(), **card_files(before, None)})
    where = None if beside is None else there
    return Ungrown(out, link, plan.num_parameters, layout.nbytes, digest, unproved, where)


_NO_HASH = f"{MANIFEST} has no sha256 of the base, and that is not at hand"


def _last_growth(manifest: Manifest) -> tuple[int, Link]:
    """Return where the last growth stands in the chain; behind it only what is new was trained."""
    for position in reversed(range(len(manifest.chain))):
        link = manifest.chain[position]
        if isinstance(link, Link):
            return position, link
        if link.trainable != _NEW:
            raise ModelError(
                f"{printable(link.result.name)} was trained with trainable: "
                f"{printable(link.trainable)}, and old weights moved with the new ones",
                hint="a growth can be taken back where trainable: new trained what it added alone",
            )
    raise ModelError(f"{MANIFEST} has no growth that could be taken back")


def _check_same(grown: GrowthPlan, found: GrowthPlan) -> None:
    """Refuse a model that is not what its recorded growth makes of the base that is recorded."""
    shapes, there = (
        {name: tensor.shape for name, tensor in plan.tensors.items()} for plan in (grown, found)
    )
    if shapes != there:
        odd = next(name for name in {**shapes, **there} if shapes.get(name) != there.get(name))
        raise ModelError(
            f"{printable(odd)} has shape {there.get(odd)}, and {shapes.get(odd)} by the growth "
            f"that {MANIFEST} records"
        )
    for key in sorted(grown.config.keys() | found.config.keys()):
        one, other = grown.config.get(key), found.config.get(key)
        if key not in _ASIDE and one != other:
            raise ModelError(
                f"config.json: {printable(key)} is {printable(repr(other), 80)}, and the growth "
                f"that {MANIFEST} records would make it {printable(repr(one), 80)} again, so what "
                "it was in the base is not known"
            )


def _as_it_lay(plan: GrowthPlan, files: Mapping[str, WeightFile]) -> tuple[GrowthPlan, str]:
    """Return the plan in the dtype that the base had, and why its bytes cannot be compared."""
    if list(files) != [SINGLE]:
        lay = f"{len(files)} files" if len(files) > 1 else f"another file than {SINGLE}"
        return plan, f"the base lay in {lay}, and nobody recorded what lay where"
    wanted = files[SINGLE]
    for dtype in (None, *CONFIG_DTYPES):
        converted = with_dtype(plan, dtype)
        if _layout(converted).nbytes == wanted.nbytes:
            return converted, "" if wanted.sha256 else _NO_HASH
    return plan, (
        f"the base lay otherwise in its file of {wanted.nbytes} bytes, or held tensors that growth "
        "leaves out, which are not here"
    )


def _in_dtypes_of(plan: GrowthPlan, base: GrowthPlan) -> GrowthPlan:
    """Return the plan with every tensor in the dtype that the base has it in."""
    tensors = {
        name: replace(tensor, dtype=base.tensors[name].dtype) if name in base.tensors else tensor
        for name, tensor in plan.tensors.items()
    }
    config = {key: value for key, value in plan.config.items() if key not in _DTYPES}
    config |= {key: base.config[key] for key in _DTYPES if key in base.config}
    return replace(plan, tensors=tensors, config=config)


def _check_record(
    manifest: Manifest, folder: Path, found: GrowthPlan, progress: Progress, unproved: str
) -> None:
    """Refuse a model of which neither bytes nor record say that old weights have not moved."""
    files = {name: WeightFile(file.nbytes) for name, file in found.files.items()}
    if any(file.sha256 for file in manifest.files.values()):
        files = hashed(folder, files, progress)
    if manifest.elsewhere or not describes(manifest, files):
        raise ModelError(
            f"whether old weights have moved cannot be told: {unproved}, and the weights are not "
            f"those that {MANIFEST} records",
            hint=f"grow with {argument('verify')}, which records the sha256 of the base",
        )


def _layout(plan: GrowthPlan) -> Layout:
    """Lay a plan out in one file as the safetensors library does: by dtype, then by name."""
    order = sorted(plan.tensors.items(), key=lambda one: (-DTYPE_NBYTES[one[1].dtype], one[0]))
    header = build_header(
        ((name, tensor.dtype, tensor.shape) for name, tensor in order),
        metadata={"format": "pt"},
        block_nbytes=8,
    )
    placed, offset = [], len(header)
    for name, tensor in order:
        placed.append(Placed(name, tensor, offset))
        offset += tensor.nbytes
    return Layout((Shard(SINGLE, header, tuple(placed)),))
