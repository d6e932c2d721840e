"""Schedule-Free AdamW is the algorithm of the paper, and refuses what would break it."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch.nn import Parameter

from hfgrow.errors import UsageError
from hfgrow.train.optimizers import averaged
from hfgrow.train.schedule_free import ScheduleFreeAdamW as ScheduleFree


@dataclass
class Paper:
    """Algorithm 1 of the paper for one number, with Adam's scale, all three points kept."""

    value: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    r: float
    power: float
    z: float = field(init=False)
    x: float = field(init=False)
    y: float = field(init=False)
    v: float = 0.0
    t: int = 0
    rates: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.x = self.y = self.z = self.value

    def step(self, gradient: float, rate: float) -> None:
        self.t += 1
        self.rates.append(rate)
        self.weights.append(self.t**self.r * max(self.rates) ** self.power)
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2
        scale = math.sqrt(self.v / (1 - self.beta2**self.t)) + self.eps
        self.z -= rate * (gradient / scale + self.weight_decay * self.y)
        share = self.weights[-1] / sum(self.weights)
        self.x = (1 - share) * self.x + share * self.z
        self.y = (1 - self.beta1) * self.z + self.beta1 * self.x


@pytest.mark.parametrize("r", [0.0, 1.5])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_schedule_free_is_the_algorithm_of_the_paper(r: float, weight_decay: float) -> None:
    numbers = [0.3, -1.2, 2.0]
    parameter = Parameter(torch.tensor(numbers))
    optimizer = ScheduleFree([parameter], lr=0.1, betas=(0.9, 0.97), weight_decay=weight_decay, r=r)
    papers = [Paper(n, 0.9, 0.97, 1e-8, weight_decay, r, 2.0) for n in numbers]
    for number in range(40):
        rate = 0.1 * min(1.0, (number + 1) / 8)
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.cos(3 * parameter.detach()) + 0.1 * parameter.detach()
        for paper in papers:
            paper.step(math.cos(3 * paper.y) + 0.1 * paper.y, rate)
        optimizer.step()
    assert parameter.tolist() == pytest.approx([paper.y for paper in papers], abs=2e-5)
    with averaged(optimizer):
        assert parameter.tolist() == pytest.approx([paper.x for paper in papers], abs=2e-5)
    z = optimizer.state[parameter]["z"]
    assert z.tolist() == pytest.approx([paper.z for paper in papers], abs=2e-5)


def test_a_step_leaves_the_gradients_as_they_are() -> None:
    parameter = Parameter(torch.ones(3))
    optimizer = ScheduleFree([parameter], lr=0.1, weight_decay=0.5)
    parameter.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    assert parameter.grad.tolist() == [1.0, -2.0, 3.0]


def test_a_step_on_the_mean_is_refused() -> None:
    parameter = Parameter(torch.ones(3))
    optimizer = ScheduleFree([parameter])
    optimizer.eval()
    with pytest.raises(RuntimeError, match=r"call train\(\)"):
        optimizer.step()


def test_parameters_below_float32_are_refused() -> None:
    with pytest.raises(UsageError, match="needs float32 parameters, not bfloat16"):
        ScheduleFree([Parameter(torch.ones(3, dtype=torch.bfloat16))])


def test_a_beta_of_zero_has_no_way_back_from_the_mean() -> None:
    with pytest.raises(UsageError, match="beta1"):
        ScheduleFree([Parameter(torch.ones(3))], betas=(0.0, 0.9))
