"""A budget of compute parted between a base and the model that it grows to.

Source: Du et al. 2024, "Stacking Your Transformers: A Closer Look at Model Growth for Efficient LLM
Pre-Training", https://arxiv.org/abs/2405.15319, Sec. 4.2
"""

from dataclasses import asdict, dataclass

from hfgrow.errors import UsageError
from hfgrow.scaling import PAPER, REPORTED, TimingLaw

DEFAULT_G = 4
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

    @property
    def is_clamped(self) -> bool:
        """Whether the law asked for more than a budget should give to a base."""
        return self.base_tokens < self.law_tokens

    @property
    def outside(self) -> tuple[str, ...]:
        """Which of `N` and `C` lie outside of what the law was fitted on."""
        return self.law.outside(self.num_parameters, self.flops)

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
            "base_share": share,
            "continued_share": 1 - share,
            "law": asdict(self.law),
            "reported": [asdict(found) for found in REPORTED],
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
        raise UsageError(f"growth factor g must be from 2 to {MAX_G}, not {g}")
    base = num_base_parameters or num_parameters / g
    if base < 1:
        raise UsageError(
            f"a base of {num_parameters:g} / {g} parameters is less than one parameter",
            hint="name the parameters of the grown model: --parameters 7B",
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
            hint="name more compute, --tokens 300B or --flops 1e22",
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
    if g <= 4:
        return (
            "the paper's optimum lies between 2 and 4, and it takes 4 whatever the size: the "
            "smaller base is cheaper, and as good a start"
        )
    return (
        "above the paper's optimum, which lies between 2 and 4: the shallower the base, the less "
        "it learns; one of a single layer did worse than training from scratch"
    )
