"""A seeded order of n things in which the place of each is computed on its own.

A Feistel network permutes the numbers below the next power of four; a result of n or more is put
through it again until one is below n ("cycle walking"), which makes a permutation of the numbers
below n. The order takes no memory, and has no state.

Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", Sec. 3 and 4.
"""

from hfgrow.train.data.numbers import key, mix

_ROUNDS = 6


class Permutation:
    """An order of the numbers 0 to size - 1.

    Args:
        size: How many there are, at least 1.
        seeds: What decides the order.
    """

    def __init__(self, size: int, *seeds: int | str) -> None:
        self.size = size
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._keys = [key("permutation", *seeds, i) for i in range(_ROUNDS)]

    def __getitem__(self, place: int) -> int:
        """Return the number at a place, from 0."""
        if not 0 <= place < self.size:
            raise IndexError(f"place {place} of {self.size}")
        number = self._network(place)
        while number >= self.size:
            number = self._network(number)
        return number

    def _network(self, number: int) -> int:
        mask = (1 << self._half_bits) - 1
        left, right = number >> self._half_bits, number & mask
        for round_key in self._keys:
            left, right = right, left ^ (mix(right ^ round_key) & mask)
        return left << self._half_bits | right
