"""Numbers as they are stored, and as they are computed with: float32 or float64 of numpy.

numpy has no bfloat16: its 16 bits are the upper half of a float32, and are handled as integers.
"""

from typing import Any

# How numpy holds what is stored.
_STORED = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
# The bits of infinity.
_INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000, "F64": 0x7FF0000000000000}


def stored_dtype(dtype: str) -> Any:
    """Return how numpy holds a dtype of safetensors."""
    import numpy as np

    return np.dtype(_STORED[dtype])


def widened(stored: Any, dtype: str, wide: Any) -> Any:
    """Return stored numbers to compute with; what is given may be among them.

    Args:
        stored: Of any shape, as `stored_dtype` says.
        dtype: Their dtype, in safetensors' words.
        wide: numpy's float32 or float64.
    """
    import numpy as np

    if dtype == "BF16":
        bits = stored.astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32).astype(wide, copy=False)
    numbers = stored.astype(wide, copy=False)
    if not all_finite(stored, dtype):
        # Rounded as bits, others of those that are none would become numbers.
        np.copyto(numbers, np.nan, where=np.isnan(numbers))
    return numbers


def round_into(out: Any, numbers: Any, dtype: str) -> None:
    """Round to nearest even.

    Args:
        out: Where to, as `stored_dtype` says.
        numbers: float32 or float64 of the same shape, as `widened` made them; they are lost.
        dtype: The dtype of `out`, in safetensors' words.
    """
    import numpy as np

    if dtype in ("BF16", "F16"):
        # What is wider goes by float32, as in torch.
        numbers = numbers.astype(np.float32, copy=False)
    if dtype == "BF16":
        bits = numbers.view(np.uint32)
        carry = bits >> np.uint32(16)
        carry &= np.uint32(1)
        carry += np.uint32(0x7FFF)
        bits += carry
        bits >>= np.uint32(16)
        numbers = bits
    np.copyto(out, numbers, casting="unsafe")


def all_finite(stored: Any, dtype: str) -> bool:
    """Say whether none of the stored numbers is infinite or none."""
    return not _reaches(stored, _INFINITY[dtype])


def finite(stored: Any, dtype: str) -> Any:
    """Return of each stored number whether it is finite."""
    bits = _bits(stored)
    return bits & bits.dtype.type(_INFINITY[dtype]) != _INFINITY[dtype]


def _bits(numbers: Any) -> Any:
    return numbers.view(f"<u{numbers.itemsize}")


def _reaches(numbers: Any, limit: int) -> bool:
    """Say whether the bits of a number, its sign apart, are `limit` or more."""
    if not numbers.size:
        return False
    bits = _bits(numbers)
    sign = 1 << (8 * bits.itemsize - 1)
    return int(bits.view(f"<i{bits.itemsize}").max()) >= limit or int(bits.max()) >= limit | sign
