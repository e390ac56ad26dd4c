"""Values of a repair's parts: as the command line has them, and as messages show them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from lcbench.errors import RequestError, did_you_mean


def kind_of(
    value: Any, key: str, noun: str, kinds: Collection[str], examples: str
) -> tuple[str, Any]:
    """Return the kind of part that a value names, and its options: `mean`, or `{mean: 256}`.

    Args:
        value: value of the key.
        key: key on the command line.
        noun: name of such a part in messages.
        kinds: names of all kinds.
        examples: last sentence of messages.

    Returns:
        The kind, and its options; None: none are given.

    Raises:
        RequestError: it names no kind, or several.
    """
    written = f"{key}={shown(value)}"
    if isinstance(value, str):
        value = {value: None}
    if not isinstance(value, Mapping) or not value:
        raise RequestError(f"{written} is not a {noun}. {examples}.")
    if len(value) > 1:
        raise RequestError(
            f"{written}: one {noun} at a time, {' or '.join(map(str, value))}; to compare them, a "
            f"list: '{key}=[{', '.join(shown({kind: one}) for kind, one in value.items())}]'."
        )
    ((kind, options),) = value.items()
    if kind not in kinds:
        near = did_you_mean(str(kind), kinds)
        raise RequestError(f"{written}: {kind} is not a {noun}.{near} {examples}.")
    return kind, options


def check_options(
    options: Collection[Any], known: Collection[str], written: str, kind: str
) -> None:
    """Check that a kind of part has options of these names.

    Args:
        options: names.
        known: names of its options.
        written: the whole part, for the message.
        kind: name of the kind.

    Raises:
        RequestError: it has no such option.
    """
    for key in options:
        if key not in known:
            takes = f"takes {', '.join(known)}, not {key}" if known else "takes no options"
            raise RequestError(f"{written}: {kind} {takes}.{did_you_mean(str(key), known)}")


def number(value: Any, written: str, name: str) -> float:
    """Return a finite number.

    Args:
        value: a number, or text of one.
        written: the whole part, for the message.
        name: name of the number in the message.

    Raises:
        RequestError: it is none.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RequestError(f"{written}: {name} is a number, not {value}.") from None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:
        raise RequestError(f"{written}: {name} is a finite number, not {shown(value)}.")
    # Without a negative zero.
    return float(value) + 0.0


def shown(value: Any) -> str:
    """Return a value as the command line has it."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shown(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
