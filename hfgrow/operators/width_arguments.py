"""What the width operators are told alike: how wide to grow, noise and seed."""

from typing import Annotated

from hfgrow.errors import UsageError
from hfgrow.plan.width_maps import Widths

GrowthFactor = Annotated[
    int | None,
    "Growth factor of every width: hidden_size, intermediate_size and both kinds of heads.",
]
HiddenSize = Annotated[int | None, "Target hidden_size, the width of the residual stream."]
IntermediateSize = Annotated[int | None, "Target intermediate_size, the neurons of each MLP."]
Heads = Annotated[
    int | None,
    "Target num_attention_heads, the query heads; without grouped queries key-value heads follow.",
]
KeyValueHeads = Annotated[int | None, "Target num_key_value_heads."]
NoiseAmount = Annotated[
    float,
    "Noise on the copies, relative to the rows it is added to, which cancels in what they compute; "
    "0 leaves copies that training cannot tell apart.",
]
Seed = Annotated[int, "Seeds what is random; the same seed gives the same bytes."]

_TARGETS = {"hidden": "hidden_size", "ffn": "ffn", "heads": "heads", "kv_heads": "kv_heads"}


def width_arguments(widths: Widths, g: int | None, **more: object) -> dict[str, object]:
    """Return the record of a width operator's arguments, every default spelt out."""
    if g is not None:
        return {"g": g, **more}
    targets = {key: widths.after[axis] for axis, key in _TARGETS.items() if widths.grows(axis)}
    return {**targets, **more}


def check_multiples(operator: str, widths: Widths) -> None:
    """Refuse widths that are no multiples of the base's.

    Raises:
        UsageError: One is not.
    """
    for axis, key in _TARGETS.items():
        if widths.after[axis] % widths.before[axis]:
            raise UsageError(
                f"{operator} copies whole multiples; {key} {widths.after[axis]} is none of "
                f"{widths.before[axis]}",
                hint="hyperclone-noisy takes any width",
            )
