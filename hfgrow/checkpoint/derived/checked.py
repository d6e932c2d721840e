"""The family of a config that no table knows, from transformers' model and the headers.

The files hold exactly the tensors of the model, under the names it has in memory or is saved with;
what they hold beyond is refused, or dropped by name where no growth can keep it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from hfgrow.checkpoint.derived.layers import all_traits, kinds_of
from hfgrow.checkpoint.derived.proven import row_of
from hfgrow.checkpoint.derived.skeleton import Form, Skeleton, skeleton_of
from hfgrow.errors import ModelError, printable
from hfgrow.plan.families.derived import DerivedFamily
from hfgrow.plan.families.rewrite import DEPTHS, PREDICTORS
from hfgrow.plan.families.table import AXIS_KEYS
from hfgrow.plan.plan import TensorPlan, stored_in

# Says whether two stored tensors have the same bytes; None where they cannot be read.
SameBytes = Callable[[TensorPlan, TensorPlan], bool] | None
# Buffers that old checkpoints store and every model class recomputes.
_RECOMPUTED = re.compile(
    r"(.+\.)?(rotary_emb\.inv_freq|embeddings\.position_ids|attn\.(masked_)?bias|"
    r"attention\.(masked_)?bias|attn\.attention\.(masked_)?bias)"
)
# What predicts tokens further ahead, by name.
_PREDICTOR = re.compile(r"(model\.)?mtp(_\w+)?\..*")
_PER_LAYER_WIDTH = "hidden_size_per_layer_input"


def derived(
    config: Mapping[str, Any],
    tensors: dict[str, TensorPlan],
    notes: list[str],
    same_bytes: SameBytes = None,
) -> DerivedFamily:
    """Return the family that transformers makes of a config, its tensors compared with the files.

    Args:
        config: config.json, checked.
        tensors: Those in the files; what cannot be grown or is stored twice is taken out.
        notes: Told what was taken out.
        same_bytes: Compares two tensors that the config ties.

    Raises:
        ModelError: transformers has no such model, or other tensors for it.
    """
    _check_depth(config, len(tensors))
    skeleton = skeleton_of(config)
    _drop_recomputed(skeleton, tensors, notes)
    form = form_of(skeleton, tensors)
    _drop_predictors(skeleton, form, config, tensors, notes)
    _drop_tied(form, tensors, notes, same_bytes)
    check_tensors(form, {name: one.shape for name, one in tensors.items()}, skeleton, tensors)
    return family_of(skeleton, form)


def family_of(skeleton: Skeleton, form: Form) -> DerivedFamily:
    """Return the family of a model whose files have names of one form."""
    from transformers import __version__

    settings = skeleton.settings
    zero = row_of(skeleton.config.model_type, __version__).get("zero", {})
    return DerivedFamily(
        model_type=skeleton.config.model_type,
        architecture=type(skeleton.model).__name__,
        version=__version__,
        stack=form.stack,
        inside=skeleton.inside,
        settings=settings,
        kinds=kinds_of(all_traits(skeleton.layers)),
        embeddings=skeleton.embeddings,
        tables=_tables(form, settings, len(skeleton.layers)),
        sizes={axis: _count(skeleton.text, key) for axis, key in AXIS_KEYS.items()},
        ends=zero.get("ends", {}),
        seen=frozenset(zero.get("seen", ())),
    )


def _count(text: Any, key: str) -> int | None:
    try:
        value = getattr(text, key, None)
    except Exception:  # an attribute that layers have each their own of
        return None
    return value if type(value) is int and value > 0 else None


def _tables(form: Form, settings: Mapping[str, Any], num_layers: int) -> dict[str, int]:
    """Return the tensors outside the layers that have a part for each, and their axis."""
    width = settings.get(_PER_LAYER_WIDTH)
    if not width:
        return {}
    # The columns of embeddings, and the rows of what projects onto them.
    axes = {name: int("embed" in name) for name in form.shapes if "per_layer" in name}
    return {
        name: axis
        for name, axis in axes.items()
        if not name.startswith(form.stack)
        and len(form.shapes[name]) == 2
        and form.shapes[name][axis] == width * num_layers
    }


def _check_depth(config: Mapping[str, Any], num_tensors: int) -> None:
    """Refuse a depth that no model with these files can have, before anything of it is built."""
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        for key in DEPTHS:
            value = part.get(key)
            if value is None:
                continue
            if type(value) is not int or value < 0:
                raise ModelError(
                    f"config.json: {key} must be an integer, not {printable(repr(value))}"
                )
            if value > max(num_tensors, 64):
                raise ModelError(
                    f"config.json says {key} {printable(value, 40)}, but the files hold only "
                    f"{num_tensors} tensors"
                )


def form_of(skeleton: Skeleton, tensors: Mapping[str, Any]) -> Form:
    """Return the form whose names are nearest to those in the files."""

    def strangers(form: Form) -> int:
        return len(form.shapes.keys() ^ tensors.keys())

    return min(skeleton.forms, key=strangers)


def _drop_recomputed(skeleton: Skeleton, tensors: dict[str, TensorPlan], notes: list[str]) -> None:
    known = {name for form in skeleton.forms for name in form.shapes}
    dropped = [name for name in tensors if name not in known and _RECOMPUTED.fullmatch(name)]
    for name in dropped:
        del tensors[name]
    if dropped:
        notes.append(
            f"{len(dropped)} buffers such as {printable(dropped[0])} were dropped: they "
            "are recomputed"
        )


def _drop_predictors(
    skeleton: Skeleton,
    form: Form,
    config: Mapping[str, Any],
    tensors: dict[str, TensorPlan],
    notes: list[str],
) -> None:
    """Take out the blocks behind the layers that predict further tokens."""
    num_layers = len(skeleton.layers)
    said = {**config, **_inside(config, skeleton.inside)}
    counts = [said[key] for key in PREDICTORS if type(said.get(key)) is int]
    most = num_layers + max(counts, default=0)
    behind = re.compile(rf"{re.escape(form.stack)}(\d+)\.")
    dropped = []
    for name in tensors:
        found = behind.match(name)
        if found and int(found[1]) >= num_layers:
            if int(found[1]) >= most:
                raise ModelError(
                    f"config.json says {num_layers} layers, but the files hold {printable(name)}"
                )
            dropped.append(name)
        elif name not in form.shapes and _PREDICTOR.fullmatch(name):
            dropped.append(name)
    for name in dropped:
        del tensors[name]
    if dropped:
        notes.append(
            f"{len(dropped)} tensors such as {printable(dropped[0])} predict tokens further ahead: "
            "they fit no other number of layers, and are left out"
        )


def _inside(config: Mapping[str, Any], keys: tuple[str, ...]) -> Mapping[str, Any]:
    for key in keys:
        config = config.get(key) or {}
    return config


def _drop_tied(
    form: Form, tensors: dict[str, TensorPlan], notes: list[str], same_bytes: SameBytes
) -> None:
    """Keep one of the tensors that the config ties, if several are stored."""
    for names in form.tied:
        first, *others = [name for name in names if name in tensors] or [""]
        for other in others:
            if same_bytes is not None and not same_bytes(tensors[first], tensors[other]):
                raise ModelError(
                    f"{printable(other)} differs from {printable(first)}, which config.json ties "
                    "it to",
                    hint='set "tie_word_embeddings": false in config.json if it is its own',
                )
            del tensors[other]
            notes.append(f"{printable(other)} is tied to {printable(first)} and is stored once")


def check_tensors(
    form: Form,
    shapes: Mapping[str, tuple[int, ...]],
    skeleton: Skeleton,
    stored: Mapping[str, TensorPlan] | None = None,
) -> None:
    """Compare names and shapes with those that transformers expects.

    Raises:
        ModelError: One is missing, is none of the model's, or has another shape.
    """
    kind = type(skeleton.model).__name__
    tied = {name: names for names in form.tied for name in names}
    for name, shape in form.shapes.items():
        if name not in shapes:
            if any(other in shapes for other in tied.get(name, ())):
                continue
            raise ModelError(
                f"{printable(name)} is missing; a {kind} with this config.json has it, shape "
                f"{list(shape)}"
            )
        if shapes[name] != shape:
            at = f"{stored_in(stored[name]).file}: " if stored else ""
            raise ModelError(
                f"{at}{printable(name)} has shape {list(shapes[name])}, but a {kind} with this "
                f"config.json has {list(shape)}"
            )
    for name in shapes:
        if name not in form.shapes:
            at = f"{stored_in(stored[name]).file}: " if stored else ""
            raise ModelError(
                f"{at}{printable(name)} is no tensor of a {kind} with this config.json",
                hint="a quantised or an adapted checkpoint cannot be grown"
                if re.search(r"lora_|scale|qweight|qzeros|absmax", name)
                else "",
            )
