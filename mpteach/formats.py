"""Binary floating-point formats: a format is a frozen value, everything else is read off it.

Source: IEEE 754-2019, section 3.4 (binary interchange formats).
"""

from dataclasses import dataclass

from mpteach.errors import InputError


@dataclass(frozen=True)
class FloatFormat:
    """A format with a sign bit, exponent bits and fraction bits, laid out as IEEE 754 does.

    The lowest exponent field holds zero and the subnormals, the highest inf and NaN.
    """

    name: str
    exponent_bits: int
    fraction_bits: int

    @property
    def bits(self) -> int:
        """Bits of one value, the sign included."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def eps(self) -> float:
        """Distance from 1 to the next larger value."""
        return 2.0**-self.fraction_bits

    @property
    def max(self) -> float:
        """Largest finite value."""
        return (2 - self.eps) * 2.0**self.bias

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value with all significant bits."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value."""
        return self.smallest_normal * self.eps


FORMATS = {
    format.name: format
    for format in (
        FloatFormat("float32", 8, 23),
        FloatFormat("tfloat32", 8, 10),
        FloatFormat("float16", 5, 10),
        FloatFormat("bfloat16", 8, 7),
    )
}


def get(name: str) -> FloatFormat:
    """Return the format called `name`; raise InputError that lists the names."""
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}: choose from {', '.join(FORMATS)}.")
    return FORMATS[name]
