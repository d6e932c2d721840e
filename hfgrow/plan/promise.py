"""What was measured of base and grown model, and how far the same function may be off."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from hfgrow.errors import VerificationError, argument


@dataclass(frozen=True, slots=True)
class Measured:
    """What a forward pass over a probe text said of base and grown model.

    Attributes:
        text: What the tokens came from.
        num_tokens: How many there were.
        dtype: What the models computed in; the coarser one if they differ.
        base_loss: Cross-entropy of the base in nats per token.
        grown_loss: Cross-entropy of the grown model.
        max_abs_dlogit: The largest difference of two logits.
        mean_abs_dlogit: Their mean difference.
        argmax_agreement: Share of the tokens with the same most likely successor.
        mean_kl: KL(base || grown) in nats, the mean over the tokens; None in an older record.
        max_abs_logit: The largest absolute logit of the base; None in an older record.
        rounding: The largest difference of two logits of one model, base or grown, in float32 and
            in float64; None where the usual tolerance held, so that nobody asked.
    """

    text: str
    num_tokens: int
    dtype: str
    base_loss: float
    grown_loss: float
    max_abs_dlogit: float
    mean_abs_dlogit: float
    argmax_agreement: float
    mean_kl: float | None = None
    max_abs_logit: float | None = None
    rounding: float | None = None

    def __repr__(self) -> str:
        return (
            f"Measured(loss {self.base_loss:.4f} -> {self.grown_loss:.4f} on {self.num_tokens} "
            f"tokens of {self.text}, {self.dtype}; |dlogit| max {self.max_abs_dlogit:.3g}, argmax "
            f"agrees at {self.argmax_agreement:.1%})"
        )

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a function-preserving growth may be off; None is no bound.

    Attributes:
        relative_dlogit: The largest difference of two logits, in units of the base's largest
            absolute logit.
        mean_kl: Nats per token.
        dloss: The difference of the losses, nats per token.
    """

    relative_dlogit: float | None = None
    mean_kl: float | None = None
    dloss: float | None = None


# A growth that preserves the function in exact arithmetic sums in another order. In float32 each
# logit shows that; the norms of transformers compute in float32 in a float64 model too. The half
# precisions round every activation, so that single logits say little and the distribution counts.
# Ten times and more of what was measured on SmolLM2-135M: docs/operators.md. Where norms are large
# rounding alone does more; then it is measured, and base and grown model, each with its own, may
# differ by four times as much. Beyond a hundredth of the largest logit a fault would not show.
_ROUNDINGS, _MOST = 4.0, 1e-2
_FULL = Tolerance(relative_dlogit=1e-4)
TOLERANCES: Mapping[str, Tolerance] = {
    "float64": _FULL,
    "float32": _FULL,
    "float16": Tolerance(mean_kl=1e-3, dloss=0.01),
    "bfloat16": Tolerance(mean_kl=0.02, dloss=0.05),
}


def coarser(one: str, other: str) -> str:
    """Return the dtype of the two that rounds more."""
    order = list(TOLERANCES)
    return max(one, other, key=order.index)


def may_be_rounding(measured: Measured) -> bool:
    """Say whether what rounding does to these models decides, and has to be measured."""
    limit = _dlogit_limit(measured, TOLERANCES[measured.dtype])
    return limit is not None and measured.rounding is None and not measured.max_abs_dlogit <= limit


def check_promise(measured: Measured) -> None:
    """Check that base and grown model compute the same, within the tolerance of their dtype.

    Args:
        measured: The comparison of a growth that promises to preserve the function.

    Raises:
        VerificationError: They do not.
    """
    tolerance = TOLERANCES[measured.dtype]
    found = [
        ("max |dlogit|", measured.max_abs_dlogit, _dlogit_limit(measured, tolerance)),
        ("mean KL", measured.mean_kl, tolerance.mean_kl),
        ("|dloss|", abs(measured.grown_loss - measured.base_loss), tolerance.dloss),
    ]
    broken = [
        f"{name} is {value:.3g}, at most {limit:.3g} may be"
        for name, value, limit in found
        if value is not None and limit is not None and not value <= limit
    ]
    if broken:
        raise VerificationError(
            "the growth promises the same function as its base, but on "
            f"{measured.num_tokens} tokens in {measured.dtype} {' and '.join(broken)}",
            hint="do not use this model as one that computes what its base does; grow it again, "
            f"with {argument('dtype', 'float32')} to rule out rounding, and report it if it stays",
            details={"measured": measured.to_json()},
        )


def _dlogit_limit(measured: Measured, tolerance: Tolerance) -> float | None:
    if tolerance.relative_dlogit is None or measured.max_abs_logit is None:
        return None
    usual = tolerance.relative_dlogit * measured.max_abs_logit
    most = _MOST * measured.max_abs_logit
    return max(usual, min(_ROUNDINGS * (measured.rounding or 0.0), most))
