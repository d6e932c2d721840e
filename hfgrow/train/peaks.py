"""What devices can do, and what of it a training reaches."""

from collections.abc import Mapping

# Dense bf16 FLOP/s of one device, from the makers' data sheets: a part of its name -> peak. The
# first part that fits counts.
PEAKS: Mapping[str, float] = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "B200": 2250e12,
    "B100": 1750e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10": 125e12,
    "A6000": 154.8e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
    "MI250X": 383e12,
}
# The share of it that a training usually reaches.
USUAL_MFU = 0.4


def peak_of(name: str) -> float | None:
    """Return the dense bf16 FLOP/s of a device by its name; None if it is unknown."""
    words = f" {name.replace('-', ' ')} "
    return next((peak for part, peak in PEAKS.items() if f" {part} " in words), None)
