"""Formats durations, counts, sizes and keys for people."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path


def clock(seconds: float) -> str:
    """Return a time as `4:05` or `1:04:05`; from a hundred hours on in words."""
    if seconds >= 100 * 3600:
        return duration(seconds / 3600)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(hours: float) -> str:
    """Return a time in words, rounded to two digits: `5 minutes`, `3.5 hours`, `7,300 hours`."""
    minutes = hours * 60
    if minutes < 1:
        return "a minute"
    number, unit = (minutes, "minute") if minutes < 90 else (hours, "hour")
    number = float(f"{number:.2g}")
    if number.is_integer():
        number = int(number)
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def several(number: float, what: str) -> str:
    """Return a count with its noun, given in the singular: `1 cell`, `1,400 cells`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size(count: int) -> str:
    """Return a number of bytes with a decimal unit: `1 byte`, `823 bytes`, `1.5 GB`."""
    if count < 1000:
        return several(count, "byte")
    for power, unit in enumerate(("kB", "MB", "GB", "TB"), start=1):
        if count < 1000 ** (power + 1) or unit == "TB":
            break
    return f"{count / 1000**power:,.1f} {unit}"


def gib(amount: float) -> str:
    """Return a number of GiB without its unit, in three digits: `0.0023`, `0.55`, `12.3`, `1,510`.

    Below 1 it has two.
    """
    return f"{Decimal(f'{amount:.{3 if amount >= 1 else 2}g}'):,f}"


def reason_of(error: BaseException) -> str:
    """Return the type and the message of an exception in one line, cut after 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def key_value(key: str, value: str | Path) -> str:
    """Return `key=value` in Hydra's grammar; a shell may need further quotes."""
    text = str(value)
    if re.fullmatch(r"[\w./:@%+-]+", text, flags=re.ASCII):
        return f"{key}={text}"
    return f"{key}={quoted(text)}"


def quoted(text: str) -> str:
    """Return a text in the quotes of Hydra's grammar, in which it is that text whatever it is."""
    # Within quotes a backslash is literal unless a quote follows, and ${ is a reference.
    text = re.sub(r'(\\*)"', r'\1\1\\"', text).replace("${", r"\${")
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return f'"{text}"'
