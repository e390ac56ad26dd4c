"""Numbers and options of a repair's parts, as written and as read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lcbench.errors import RequestError


def number(value: Any, written: str, name: str) -> float:
    """Return a finite number.

    Args:
        value: a number, or text of one.
        written: the whole part, for the message.
        name: what the number is called.

    Raises:
        RequestError: it is none.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RequestError(f"{written}: {name} is a number, not {value}.") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestError(f"{written}: {name} is a finite number, not {shown(value)}.")
    # Without a negative zero.
    return float(value) + 0.0


def decimal(value: float) -> str:
    """Return the shortest decimal form, with an exponent only for extremes: 0.80 is 0.8."""
    if value and not 1e-9 <= abs(value) < 1e9:
        return repr(value)
    return f"{Decimal(repr(value)).normalize():f}"


def shown(value: Any) -> str:
    """Return a value as the command line has it."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shown(one)}' for key, one in value.items())}}}"
    return "null" if value is None else str(value)
