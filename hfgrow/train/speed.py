"""Tokens a second, and the share of the devices' peak that they are."""

from dataclasses import dataclass
from typing import Any

from hfgrow.train.devices import Devices
from hfgrow.train.flops import peak_flops, utilization


@dataclass(frozen=True, slots=True)
class Speed:
    """What a token costs, and what the devices could do.

    Attributes:
        flops: FLOPs of a token, forward and backward.
        peak: FLOP/s of all devices together; None if it is unknown.
    """

    flops: float
    peak: float | None

    def of(self, tokens: int, seconds: float) -> dict[str, Any]:
        """Return `tokens_per_s` and `mfu` of a step, or of several."""
        rate = tokens / seconds
        used = self.peak and utilization(rate, self.flops, self.peak)
        return {"tokens_per_s": rate, "mfu": used}


def speed_of(flops: float, devices: Devices) -> Speed:
    """Return the speed meter of a stage; on CPUs the peak is measured, which takes a moment."""
    # Processes that share the cores of a machine measure at the same time, each its part.
    peak = peak_flops(devices.device)
    return Speed(flops, peak and peak * devices.num_processes)
