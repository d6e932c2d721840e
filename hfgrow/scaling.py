"""When to grow: the law of the growth timing, its constants, and where they were fitted.

    log10 d = a log10 N + b / log10 C + c

with `d` the tokens that the base is trained on before it grows, `N` the parameters of the grown
model, and `C` the FLOPs of everything, `6 N D` for `D` tokens of the grown model.

Source: Du et al. 2024, "Stacking Your Transformers: A Closer Look at Model Growth for Efficient LLM
Pre-Training", https://arxiv.org/abs/2405.15319, Sec. 4.2
"""

from dataclasses import dataclass
from math import log10

# A power of ten that a float holds, and no budget reaches.
_MOST_EXPONENT = 300.0
# Values that were typed or read are no less inside than those that were fitted.
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class TimingLaw:
    """The law with its constants.

    Attributes:
        a: The factor of log10 N.
        b: The factor of 1 / log10 C.
        c: The constant.
        parameters: The smallest and the largest N that it was fitted on.
        flops: The same of C.
        source: Where the constants come from.
    """

    a: float
    b: float
    c: float
    parameters: tuple[float, float]
    flops: tuple[float, float]
    source: str

    def base_tokens(self, num_parameters: float, flops: float) -> float:
        """Return d, as the law says it.

        Args:
            num_parameters: N, above 0.
            flops: C, above 1.
        """
        exponent = self.a * log10(num_parameters) + self.b / log10(flops) + self.c
        return float(10 ** max(-_MOST_EXPONENT, min(exponent, _MOST_EXPONENT)))

    def outside(self, num_parameters: float, flops: float) -> tuple[str, ...]:
        """Return which of `N` and `C` lie outside of what the law was fitted on."""
        asked = (("N", num_parameters, self.parameters), ("C", flops, self.flops))
        return tuple(
            name
            for name, value, (least, most) in asked
            if not least * (1 - _SLACK) <= value <= most * (1 + _SLACK)
        )

    @property
    def formula(self) -> str:
        """The law in a line."""
        b, c = (f"{'-' if value < 0 else '+'} {abs(value):.6g}" for value in (self.b, self.c))
        return f"log10 d = {self.a:.6g} log10 N {b} / log10 C {c}"


# Fitted on models of 410M to 3B parameters, with g = 4 and about 0.8e20 to 12e20 FLOPs. The table
# of Llama models that the paper makes with it lies outside.
PAPER = TimingLaw(
    a=0.88,
    b=163.27,
    c=-5.74,
    parameters=(0.41e9, 3e9),
    flops=(0.8e20, 12e20),
    source="Du et al. 2024, arXiv 2405.15319, Sec. 4.2",
)


@dataclass(frozen=True, slots=True)
class Reported:
    """A speed-up that the paper reports: FLOPs from scratch over FLOPs with growth, less 1.

    Attributes:
        num_parameters: Of the grown model.
        speedup: At equal training loss, 0.546 for 54.6 %.
        where: At which point of training, and where the paper says so.
    """

    num_parameters: float
    speedup: float
    where: str


# All with g = 4 and d = 10B, at learning rates that had hardly decayed.
REPORTED = (
    Reported(0.41e9, 0.531, "after 400B tokens (Sec. 4.1)"),
    Reported(0.41e9, 0.310, "after 700B tokens (Sec. 4.1)"),
    Reported(1.1e9, 0.491, "after 8e20 FLOPs (Fig. 3)"),
    Reported(3e9, 0.486, "after 180B tokens (Sec. 4.1)"),
    Reported(3e9, 0.545, "after 240B tokens (Sec. 4.1)"),
    Reported(7e9, 0.546, "194B tokens instead of 300B (abstract)"),
)
