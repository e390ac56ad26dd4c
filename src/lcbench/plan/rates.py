"""Rates measured on this machine (encoding, scoring, start-up), stored in the cache folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lcbench.system.json_cache import JsonCache

# Raise it when the layout of the file changes, so that older files are ignored.
_FORMAT = 1
# The most entries of each table of the file, which stays below a few hundred kilobytes.
_MOST = 4096


@dataclass
class Rates:
    """Measured rates, as sums in which earlier runs count less and less.

    Each entry begins with the weight of its other numbers.

    Attributes:
        encoding: by machine and width of the model: seconds of encoding, and the floating-point
            operations of what was encoded.
        texts: by model, window and origin of texts: estimated tokens, estimated texts, and actual
            texts and tokens.
        scoring: by task, protocol and width: cells; their seconds of loading, of scoring, and of
            collecting items. From any machine that shares the cache folder: another processor's
            seconds are closer than an estimate from a task's size.
        starts: by machine: runs; their seconds before the first cell.
        overlaps: by machine and number of scoring processes: `work_seconds` of the measured
            seconds of encoding and scoring; actual seconds.
    """

    encoding: dict[str, list[float]] = field(default_factory=dict)
    texts: dict[str, list[float]] = field(default_factory=dict)
    scoring: dict[str, list[float]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    overlaps: dict[str, list[float]] = field(default_factory=dict)


# Numbers in an entry of each table, and how many of the first are divisors.
_LENGTHS = {
    "encoding": (2, 2),
    "texts": (4, 2),
    "scoring": (4, 1),
    "starts": (2, 1),
    "overlaps": (2, 1),
}


_FILE = JsonCache("rates.json")


def write_rates(rates: Rates) -> None:
    """Keep measured rates in the cache folder, if it can be written."""
    _FILE.write({"format": _FORMAT, **asdict(rates)})


def read_rates() -> Rates:
    """Return the rates measured on this machine; entries that are damaged are left out."""
    return _FILE.read(_from_json) or Rates()


def _from_json(content: Any) -> Rates:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return Rates()
    tables = {}
    for table, (length, divisors) in _LENGTHS.items():
        entries = content.get(table)
        tables[table] = {
            key: [float(number) for number in entry]
            for key, entry in (entries.items() if isinstance(entries, dict) else ())
            if isinstance(entry, list)
            and len(entry) == length
            and all(is_amount(number) for number in entry)
            and min(entry[:divisors]) > 0
        }
    return Rates(**tables)


def is_amount(number: Any) -> bool:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and 0 <= number < 1e30


def add(table: dict[str, list[float]], key: str, measured: Sequence[float], memory: float) -> None:
    """Add a measurement to an entry, after scaling the entry by e^(-weight/memory).

    The mean of an entry is thus exponentially weighted over runs: the more work is measured, the
    less earlier runs count. The entry becomes the last; the first ones are dropped beyond `_MOST`.
    """
    if measured[0] <= 0 or not all(is_amount(number) for number in measured):
        return
    before = table.pop(key, [0.0] * len(measured))
    remains = math.exp(-measured[0] / memory) if memory else 0.0
    table[key] = [remains * old + new for old, new in zip(before, measured, strict=True)]
    while len(table) > _MOST:
        del table[next(iter(table))]


def sum_up(table: dict[str, list[float]], key: str, measured: Sequence[float]) -> None:
    before = table.get(key, [0.0] * len(measured))
    table[key] = [old + new for old, new in zip(before, measured, strict=True)]
