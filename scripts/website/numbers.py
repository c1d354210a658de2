"""Numbers as text: stored raw, formatted here."""

from __future__ import annotations

import math
from collections.abc import Iterable

NONE = "–"


def plural(count: int, word: str, many: str | None = None) -> str:
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def minus(text: str) -> str:
    """A real minus sign."""
    return text.replace("-", "−")


def fixed(value: float | None, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    rounded = round(value, decimals) + 0.0  # no -0.0
    return minus(f"{rounded:,.{decimals}f}")


def signed(value: float | None, decimals: int, sd: float | None = None) -> str:
    """A change: always with its sign, except for zero."""
    text = fixed(value, decimals) + (f" ± {fixed(sd, decimals)}" if sd else "")
    return f"+{text}" if value is not None and math.isfinite(value) and round(value, decimals) > 0 else text


def decimals(values: Iterable[float | None], most: int = 4) -> int:
    """How many decimals show all of these numbers as they were printed."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return next((n for n in range(most) if all(math.isclose(value, round(value, n), abs_tol=1e-9) for value in known)), most)


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(value: float | None, digits: int = 4) -> str:
    """A number of unknown size: digits that matter, powers of ten where zeros would hide them."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == round(value) and abs(value) < 1e9:
        return fixed(value, 0)
    if 1e-3 <= abs(value) < 1e7:
        shown = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = fixed(value, shown)
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = f"{value:.{digits - 2}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return minus(power if mantissa == "1" else f"{mantissa}·{power}")


def spread(mean: float, sd: float | None) -> str:
    """Mean ± standard deviation; the deviation's first two digits say how many decimals are worth showing."""
    if sd is None or not math.isfinite(mean):
        return plain(mean)
    if sd == 0 or not (1e-3 <= max(abs(mean), sd) < 1e7):
        return plain(mean) if sd == 0 else f"{plain(mean, 3)} ± {plain(sd, 3)}"
    shown = min(6, max(0, 1 - math.floor(math.log10(sd))))
    return f"{fixed(mean, shown)} ± {fixed(sd, shown)}"


def percent(mean: float | None, sd: float | None = None) -> str:
    """A share as "83.2 ± 0.4%"."""
    if mean is None or not math.isfinite(mean):
        return NONE
    return fixed(100 * mean, 1) + (f" ± {fixed(100 * sd, 1)}" if sd else "") + "%"


def times(value: float | None) -> str:
    """A ratio as "0.41×"; small ones keep two digits."""
    if value is None or not math.isfinite(value):
        return NONE
    return fixed(value, 2 if value >= 0.1 or value == 0 else 3) + "×"


_SIZES = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]


def count(mean: float | None, sd: float | None = None, unit: str = "") -> str:
    """A large count in three digits: "77.9 k", "12.5 ± 0.2 M", "310 kB"."""
    if mean is None or not math.isfinite(mean):
        return NONE
    size, letter = next(((size, letter) for size, letter in _SIZES if abs(mean) >= size), _SIZES[-1])
    small = abs(mean) / size
    shown = 0 if size == 1 else 2 if small < 9.995 else 1 if small < 99.95 else 0
    around = f" ± {fixed(sd / size, shown)}" if sd and round(sd / size, shown) > 0 else ""
    return f"{fixed(mean / size, shown)}{around} {letter}{unit}".rstrip()


def quantity(name: str, mean: float | None, sd: float | None = None) -> str:
    """A measured quantity in its unit."""
    if name == "accuracy":
        return percent(mean, sd)
    if name == "latency":
        return times(mean) if not sd or mean is None else f"{fixed(mean, 2)} ± {fixed(sd, 2)}×"
    if name == "bits":
        return fixed(mean, 2) + (f" ± {fixed(sd, 2)}" if sd and round(sd, 2) > 0 else "")
    return count(mean, sd, "B" if name == "file_bytes" else "")
