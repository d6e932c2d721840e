"""Measurements of base and grown model in words."""

from hfgrow.plan.promise import Measured


def measured_short(measured: Measured) -> str:
    """Return a measurement as the end of a growth tells it."""
    return (
        f"loss {measured.base_loss:.3f} -> {measured.grown_loss:.3f} on {measured.num_tokens} "
        f"tokens, |dlogit| max {measured.max_abs_dlogit:.3g}, mean {measured.mean_abs_dlogit:.3g}"
        f"{_kl(measured)}"
    )


def measured_lines(measured: Measured | None) -> list[str]:
    """Return a measurement as `hfgrow verify` tells it."""
    if measured is None:
        return ["logits        not measured"]
    of = "" if measured.max_abs_logit is None else f" of max |logit| {measured.max_abs_logit:.3g}"
    return [
        f"loss          {measured.base_loss:.4f} -> {measured.grown_loss:.4f} nats per token on "
        f"{measured.num_tokens} tokens of {measured.text}, {measured.dtype}",
        f"logits        |dlogit| max {measured.max_abs_dlogit:.3g}{of}, mean "
        f"{measured.mean_abs_dlogit:.3g}; argmax agrees at {measured.argmax_agreement:.1%}"
        f"{_kl(measured)}",
    ]


def _kl(measured: Measured) -> str:
    return "" if measured.mean_kl is None else f", KL {measured.mean_kl:.3g} nats"
