"""Numbers as they are stored, and as they are computed with: float32 or float64 of numpy.

numpy has no bfloat16, and takes 2 ns for each float16. Both are handled as bits of a float32: its
upper half is a bfloat16; and 2^-112 times a number has the exponent of a float16, so that its sign
and its bits 13 to 27 are one.
"""

from typing import Any

# How numpy holds what is stored.
_STORED = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
# See above.
_HALF, _HALF_BITS = 2.0**-112, 0x8FFFE000
# Float32 bits from which on float16 is infinite, or none.
_HALF_OVERFLOW = 0x477FF000
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
    is_finite = all_finite(stored, dtype)
    if dtype == "F16" and is_finite:
        # Widened with its sign, that fills the bits above the number, of which one is kept.
        bits = stored.view("<i2").astype(np.uint32)
        bits <<= np.uint32(13)
        bits &= np.uint32(_HALF_BITS)
        halves = bits.view(np.float32)
        halves /= np.float32(_HALF)
        return halves.astype(wide, copy=False)
    numbers = stored.astype(wide, copy=False)
    if not is_finite:
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
    elif dtype == "F16" and not _reaches(numbers, _HALF_OVERFLOW):
        _round_halves(out, numbers)
        return
    np.copyto(out, numbers, casting="unsafe")


def _round_halves(out: Any, numbers: Any) -> None:
    import numpy as np

    signs = numbers.view(np.uint32) >> np.uint32(16)
    bits = (numbers * np.float32(_HALF)).view(np.uint32)
    bits += np.uint32(0x1000)
    # Half way to the next, or so near below the normal ones that it looks so.
    is_half_way = bits & np.uint32(0x1FFF) == 0
    bits >>= np.uint32(13)
    bits &= np.uint32(0x7FFF)
    signs &= np.uint32(0x8000)
    bits |= signs
    np.copyto(out.view("<u2"), bits, casting="unsafe")
    np.copyto(out, numbers, casting="unsafe", where=is_half_way)


def all_finite(stored: Any, dtype: str) -> bool:
    """Say whether none of the stored numbers is infinite or none."""
    return not _reaches(stored, _INFINITY[dtype])


def finite(stored: Any, dtype: str) -> Any:
    """Return of each stored number whether it is finite."""
    bits = _bits(stored)
    return bits & bits.dtype.type(_INFINITY[dtype]) != _INFINITY[dtype]


def count_nonfinite(content: bytes | memoryview, dtype: str) -> int:
    """Return how many numbers are NaN or infinite of some that lie in memory as they are stored."""
    import numpy as np

    numbers = np.frombuffer(content, stored_dtype(dtype))
    return 0 if all_finite(numbers, dtype) else int((~finite(numbers, dtype)).sum())


def _bits(numbers: Any) -> Any:
    return numbers.view(f"<u{numbers.itemsize}")


def _reaches(numbers: Any, limit: int) -> bool:
    """Say whether the bits of a number, its sign apart, are `limit` or more."""
    if not numbers.size:
        return False
    bits = _bits(numbers)
    sign = 1 << (8 * bits.itemsize - 1)
    return int(bits.view(f"<i{bits.itemsize}").max()) >= limit or int(bits.max()) >= limit | sign
