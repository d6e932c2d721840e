"""When to grow: a budget of compute parted between a base and the model that it grows to.

The law of the growth timing, with its constants and where they were fitted:

    log10 d = a log10 N + b / log10 C + c

with `d` the tokens that the base is trained on before it grows, `N` the parameters of the grown
model, and `C` the FLOPs of everything, `6 N D` for `D` tokens of the grown model.

Source: Du et al. 2024, "Stacking Your Transformers: A Closer Look at Model Growth for Efficient LLM
Pre-Training", https://arxiv.org/abs/2405.15319, Sec. 4.2

What that law says is disputed, and stands beside it: Mallik et al. 2026, "When is Warmstarting
Effective for Scaling Language Models?", https://arxiv.org/abs/2605.13405
"""

from dataclasses import asdict, dataclass
from math import log10

from hfgrow.console import shown
from hfgrow.errors import UsageError, argument, one_of
from hfgrow.lineage.canvas import canvas, picture_bytes
from hfgrow.train.peaks import PEAKS, USUAL_MFU

# A power of ten that a float holds, and no budget reaches.
_MOST_EXPONENT = 300.0
# Values that were typed or read are no less inside than those that were fitted.
_SLACK = 1e-9
_INCHES = (8.0, 4.5)
_LAW, _BOUND, _HERE = "#1f5fa8", "#d1495b", "#222222"
_NUM_POINTS = 240
_DECADES = 1.0


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
        tokens: Of the grown model at that point; from scratch, where the paper compares by those.
        speedup: At equal training loss, 0.546 for 54.6 %.
        where: At which point of training, and where the paper says so.
    """

    num_parameters: float
    tokens: float
    speedup: float
    where: str


# All with g = 4 and d = 10B, at learning rates that had hardly decayed.
REPORTED = (
    Reported(0.41e9, 400e9, 0.531, "after 400B tokens (Sec. 4.1)"),
    Reported(0.41e9, 700e9, 0.310, "after 700B tokens (Sec. 4.1)"),
    Reported(1.1e9, 8e20 / (6 * 1.1e9), 0.491, "after 8e20 FLOPs (Fig. 3)"),
    Reported(3e9, 180e9, 0.486, "after 180B tokens (Sec. 4.1)"),
    Reported(3e9, 240e9, 0.545, "after 240B tokens (Sec. 4.1)"),
    Reported(7e9, 300e9, 0.546, "194B tokens instead of 300B (abstract)"),
)

DEFAULT_G = 4
# The largest of the paper's optimum, which lies between 2 and 4.
_MOST_G = 4


@dataclass(frozen=True, slots=True)
class Bound:
    """What a later study finds of when growth pays, on dense language models and dense MLPs.

    Attributes:
        g: The growth factor that is reliable. Somewhere above it training from scratch is better.
        tokens_per_parameter: The budget, `D / N`, below which the gain is largest.
        source: Where that was found.
    """

    g: int
    tokens_per_parameter: float
    source: str


BOUND = Bound(g=2, tokens_per_parameter=20, source="Mallik et al. 2026, arXiv 2605.13405, abstract")
# The devices whose time a budget tells.
DEVICES = ("A100", "H100", "B200")

# The most tokens of the base, as a share of those from scratch: our bound, not the paper's.
# Where the law is far from home it asks for more than there are: 24B of 2B at 135M parameters.
MOST_SHARE = 0.15

MAX_G = 1000


@dataclass(frozen=True, slots=True)
class Budget:
    """What a law makes of a budget.

    Attributes:
        law: The law.
        g: The growth factor, of what lies outside embeddings and head.
        num_parameters: `N`, of the grown model.
        num_base_parameters: `n`, of the base.
        flops: `C`, of everything.
        law_tokens: The tokens of the base as the law says them.
        base_tokens: `d`, the same bounded by a share of the tokens from scratch.
    """

    law: TimingLaw
    g: int
    num_parameters: float
    num_base_parameters: float
    flops: float
    law_tokens: float
    base_tokens: float

    def __repr__(self) -> str:
        return (
            f"Budget(base of {shown(self.num_base_parameters)}: {shown(self.base_tokens)} tokens; "
            f"g = {self.g}; grown model of {shown(self.num_parameters)}: "
            f"{shown(self.continued_tokens)} tokens)"
        )

    @property
    def scratch_tokens(self) -> float:
        """Tokens of the target from scratch for the same compute: `D = C / 6 N`."""
        return self.flops / (6 * self.num_parameters)

    @property
    def base_flops(self) -> float:
        """What the base costs: `6 n d`."""
        return 6 * self.num_base_parameters * self.base_tokens

    @property
    def continued_flops(self) -> float:
        """What is left for the grown model."""
        return self.flops - self.base_flops

    @property
    def continued_tokens(self) -> float:
        """Tokens of the grown model for that."""
        return self.continued_flops / (6 * self.num_parameters)

    def device_seconds(self, device: str) -> float:
        """Return how long one device takes for all of it, at the usual share of its peak.

        Args:
            device: One of `DEVICES`.
        """
        return self.flops / (PEAKS[device] * USUAL_MFU)

    @property
    def is_clamped(self) -> bool:
        """Whether the law asked for more than a budget should give to a base."""
        return self.base_tokens < self.law_tokens

    @property
    def outside(self) -> tuple[str, ...]:
        """Which of `N` and `C` lie outside of what the law was fitted on."""
        return self.law.outside(self.num_parameters, self.flops)

    @property
    def tokens_per_parameter(self) -> float:
        """`D / N`, of the target from scratch."""
        return self.scratch_tokens / self.num_parameters

    @property
    def disputes(self) -> tuple[str, ...]:
        """Where the law's paper and the later bound say different things of this budget."""
        found = []
        if BOUND.g < self.g <= _MOST_G:
            found.append(f"g = {self.g} is in the one's optimum, and above the other's {BOUND.g}")
        if self.tokens_per_parameter > BOUND.tokens_per_parameter:
            found.append(
                f"{self.tokens_per_parameter:.3g} tokens a parameter are above the other's "
                f"{BOUND.tokens_per_parameter:g}, where it sees the gain shrink"
            )
        return tuple(found)

    @property
    def expected_tokens(self) -> tuple[float, float]:
        """Tokens from scratch whose FLOPs would give the loss of `scratch_tokens`, least and most.

        That is what the least and the most that the paper reports would mean here.
        """
        speedups = [found.speedup for found in REPORTED]
        return (
            self.scratch_tokens / (1 + max(speedups)),
            self.scratch_tokens / (1 + min(speedups)),
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why what the paper reports may not hold here, in words."""
        found = []
        if self.outside:
            found.append(f"{' and '.join(self.outside)} outside what the law was fitted on")
        if self.is_clamped:
            found.append("d is clamped")
        if self.g != DEFAULT_G:
            found.append(f"g is {self.g} and was {DEFAULT_G} there")
        if self.law != PAPER:
            found.append("the law is not the paper's")
        return tuple(found)

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON has it."""
        share = self.base_flops / self.flops
        return {
            "g": self.g,
            "num_parameters": round(self.num_parameters),
            "num_base_parameters": round(self.num_base_parameters),
            "flops": self.flops,
            "scratch_tokens": round(self.scratch_tokens),
            "base_tokens": round(self.base_tokens),
            "law_tokens": self.law_tokens,
            "clamped": self.is_clamped,
            "extrapolated": bool(self.outside),
            "outside": list(self.outside),
            "continued_tokens": round(self.continued_tokens),
            "base_flops": self.base_flops,
            "continued_flops": self.continued_flops,
            "device_seconds": {name: self.device_seconds(name) for name in DEVICES},
            "base_share": share,
            "continued_share": 1 - share,
            "law": asdict(self.law),
            "reported": [asdict(found) for found in REPORTED],
            "tokens_per_parameter": self.tokens_per_parameter,
            "bound": asdict(BOUND),
            "disputes": list(self.disputes),
            "expected_tokens": [round(tokens) for tokens in self.expected_tokens],
            "doubts": list(self.doubts),
        }


def budget_of(
    *,
    num_parameters: float,
    flops: float,
    g: int = DEFAULT_G,
    num_base_parameters: float | None = None,
    law: TimingLaw = PAPER,
) -> Budget:
    """Part a budget as a law says.

    Args:
        num_parameters: Of the grown model.
        flops: Of everything; `6 N D` for what the target takes for D tokens from scratch.
        g: The growth factor, 2 to 1000.
        num_base_parameters: Of the base; None takes those of the grown model by g, which leaves
            embeddings and head out of account.
        law: Says the tokens of the base.

    Raises:
        UsageError: There is no such growth factor, or less than one parameter or token of anything.
    """
    if not 2 <= g <= MAX_G:
        raise UsageError(f"growth factor {argument('g')} must be from 2 to {MAX_G}, not {g}")
    base = num_base_parameters or num_parameters / g
    if base < 1:
        raise UsageError(
            f"a base of {num_parameters:g} / {g} parameters is less than one parameter",
            hint=f"name the parameters of the grown model: {argument('parameters', '7B')}",
        )
    scratch_tokens = flops / (6 * num_parameters)
    if scratch_tokens < 1:
        raise UsageError(
            f"{flops:g} FLOPs are less than one token of {num_parameters:g} parameters takes"
        )
    said = law.base_tokens(num_parameters, flops)
    tokens = min(said, MOST_SHARE * scratch_tokens)
    if tokens < 1:
        raise UsageError(
            f"the base would get {tokens:.2g} tokens, less than one: the law says {said:.2g}, and "
            f"{MOST_SHARE:.0%} of the tokens from scratch are {MOST_SHARE * scratch_tokens:.2g}",
            hint="name more compute, "
            + one_of(argument("tokens", "300B"), argument("flops", "1e22")),
        )
    return Budget(
        law=law,
        g=g,
        num_parameters=num_parameters,
        num_base_parameters=base,
        flops=flops,
        law_tokens=said,
        base_tokens=tokens,
    )


def growth_factor_advice(g: int) -> str:
    """Return what the paper found of a growth factor, in a sentence."""
    if g <= _MOST_G:
        return (
            "the paper's optimum lies between 2 and 4, and it takes 4 whatever the size: the "
            "smaller base is cheaper, and as good a start"
        )
    return (
        "above the paper's optimum, which lies between 2 and 4: the shallower the base, the less "
        "it learns; one of a single layer did worse than training from scratch"
    )


def reported_tokens_per_parameter() -> tuple[float, float]:
    """Return the least and the most `D / N` that the paper's speed-ups were seen at."""
    found = [one.tokens / one.num_parameters for one in REPORTED]
    return min(found), max(found)


def draw_budget(budget: Budget, kind: str) -> bytes:
    """Draw the law at the budget's parameters, its bound, and the budget.

    Args:
        kind: `png` or `svg`.
    """
    import numpy as np
    from matplotlib.ticker import FuncFormatter

    law, n = budget.law, budget.num_parameters
    least, most = law.flops
    low, high = min(least, budget.flops), max(most, budget.flops)
    flops = np.logspace(np.log10(low) - _DECADES, np.log10(high) + _DECADES, _NUM_POINTS)
    said = np.array([law.base_tokens(n, value) for value in flops])
    figure, axes = canvas(*_INCHES, dpi=150)
    fitted = np.array([not law.outside(n, value) for value in flops])
    axes.plot(flops, said, color=_LAW, linewidth=1.4, linestyle="--", label="law, extrapolated")
    if fitted.any():
        inside = np.where(fitted, said, np.nan)
        axes.plot(flops, inside, color=_LAW, linewidth=2.4, label="law, where it was fitted")
    bound = MOST_SHARE * flops / (6 * n)
    label = f"{MOST_SHARE:.0%} of the tokens from scratch"
    axes.plot(flops, bound, color=_BOUND, linewidth=1, label=label)
    here = (budget.flops, budget.base_tokens)
    axes.plot(*here, color=_HERE, marker="o", linestyle="none", label="this budget")
    axes.annotate(
        f"d = {shown(budget.base_tokens)}", here, xytext=(8, 8), textcoords="offset points"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_xlabel("compute C, FLOPs")
    axes.set_ylabel("tokens of the base d")
    axes.set_title(f"When to grow to {shown(n)} parameters", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    return picture_bytes(figure, kind)


def _tick(value: float, _: int | None) -> str:
    return shown(value).replace(".00", "")
