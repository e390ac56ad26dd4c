"""Temperatures of a model by layer and head, and possibly by length, as a JSON file has them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError, did_you_mean
from lcbench.system.files import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

Matrix = tuple[tuple[float, ...], ...]
"""Temperatures by layer and head."""

_NEEDED = ("model", "layers", "heads", "tau")
_KEYS = (*_NEEDED, "revision", "lengths", "made")
_EXAMPLE = (
    '{"model": NAME, "revision": null, "layers": 6, "heads": 12, "lengths": [64, 512], '
    '"tau": [a number for each head in each layer, for each length]}'
)
_DIGITS = 12


@dataclass(frozen=True)
class HeadTemperatures:
    """The temperatures of a model's attention heads.

    Between two lengths log τ is linear in log n; below the first and beyond the last, τ is that of
    the first and the last.

    Attributes:
        model: name of the model that they are for.
        revision: its revision in results; None: any.
        matrices: temperatures by layer and head for each length; one matrix if `lengths` is empty.
        lengths: lengths in tokens, special tokens included, at least two, rising; empty: the
            temperatures do not depend on length.
        made: how they were made.
        source: what messages call them.
    """

    model: str
    revision: str | None
    matrices: tuple[Matrix, ...]
    lengths: tuple[int, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict, compare=False)
    source: str = field(default="tau={heads: …}", compare=False)

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self.matrices[0])

    @property
    def heads(self) -> int:
        """The number of query heads in each layer."""
        return len(self.matrices[0][0])

    @property
    def digest(self) -> str:
        """A digest of the temperatures and lengths, of which embeddings are made."""
        content = json.dumps([self.lengths, self.matrices])
        return hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]

    def content(self) -> dict[str, Any]:
        """Return the content of a file, in JSON types."""
        matrices = [[list(layer) for layer in matrix] for matrix in self.matrices]
        return {
            "model": self.model,
            "revision": self.revision,
            "layers": self.layers,
            "heads": self.heads,
            "lengths": list(self.lengths) or None,
            "tau": matrices if self.lengths else matrices[0],
            "made": dict(self.made),
        }

    def by_length(self, longest: int) -> NDArray[Any]:
        """Return τ for texts of 0 to `longest` tokens: [longest + 1, layers, heads]."""
        import numpy as np

        logs = np.log(np.array(self.matrices))
        if not self.lengths:
            return np.broadcast_to(np.exp(logs), (longest + 1, self.layers, self.heads))
        given = np.log(self.lengths)
        places = np.log(np.maximum(1, np.arange(longest + 1)))
        before = np.clip(np.searchsorted(given, places, side="right") - 1, 0, len(given) - 2)
        share = (places - given[before]) / (given[before + 1] - given[before])
        share = np.clip(share, 0, 1)[:, None, None]
        return np.asarray(np.exp((1 - share) * logs[before] + share * logs[before + 1]))

    def refuse_other(
        self, name: str | None, revision: str | None, layers: int | None, heads: int | None
    ) -> None:
        """Refuse a model that the temperatures are not for; None: not known.

        Raises:
            RequestError: it has another name and revision, or other numbers of layers or heads.
        """
        if name is not None:
            same = name == self.model if self.revision is None else revision == self.revision
            if not same:
                known = "" if self.revision is None else f" at revision {self.revision}"
                raise RequestError(
                    f"{self.source} has temperatures for {self.model}{known}, not for {name} at "
                    f"revision {revision}. Make them for this model (lcbench tune)"
                    f"{_if_same(name, self)}."
                )
        for kind, own, found in (("layers", self.layers, layers), ("heads", self.heads, heads)):
            if found is not None and own != found:
                raise RequestError(
                    f"{self.source} has temperatures for {own} {kind}, and the model has {found}."
                )


def read_temperatures(path: Path) -> HeadTemperatures:
    """Read temperatures from a file.

    Raises:
        RequestError: the file cannot be read, or does not hold temperatures by layer and head.
    """
    source = f"tau={{heads: {path}}}"
    try:
        content = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(
            f"{source}: the file cannot be read ({error.strerror}). `lcbench tune` writes one."
        ) from None
    except ValueError as error:
        raise RequestError(f"{source}: the file is not JSON ({error}).") from None
    return temperatures_of(content, source)


def write_temperatures(temperatures: HeadTemperatures, path: Path) -> None:
    """Write temperatures to a file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, json.dumps(temperatures.content(), indent=1) + "\n")


def temperatures_of(content: Any, source: str = "tau={heads: …}") -> HeadTemperatures:
    """Return the temperatures that the content of a file stands for.

    Args:
        content: JSON.
        source: what messages call it.

    Raises:
        RequestError: it does not hold temperatures by layer and head.
    """
    if not isinstance(content, Mapping):
        raise RequestError(f"{source}: expected an object, {_EXAMPLE}.")
    for key in content:
        if key not in _KEYS:
            near = did_you_mean(str(key), _KEYS)
            raise RequestError(f"{source}: {key} is not one of {', '.join(_KEYS)}.{near}")
    for key in _NEEDED:
        if content.get(key) is None:
            raise RequestError(f"{source}: {key} is missing: {_EXAMPLE}.")
    for key in ("model", "revision"):
        if not isinstance(content.get(key), str | None):
            raise RequestError(f"{source}: {key}={content[key]} is not a text.")
    made = content.get("made") or {}
    if not isinstance(made, Mapping):
        raise RequestError(f"{source}: made={made} is not an object.")
    layers, heads = (_count(content[key], f"{source}: {key}") for key in ("layers", "heads"))
    lengths = _lengths(content.get("lengths"), source)
    listed = content["tau"] if lengths else [content["tau"]]
    if lengths:
        _check_list(listed, len(lengths), "lengths", f"{source}: tau")
    where = [f"{source}: tau at length {length}" for length in lengths] or [f"{source}: tau"]
    matrices = tuple(
        _matrix(matrix, layers, heads, place) for matrix, place in zip(listed, where, strict=True)
    )
    if len(set(matrices)) == 1:
        # They do not depend on length.
        matrices, lengths = matrices[:1], ()
    return HeadTemperatures(
        content["model"], content.get("revision"), matrices, lengths, dict(made), source
    )


def _if_same(name: str, temperatures: HeadTemperatures) -> str:
    if name != temperatures.model:
        return ""
    return ', or set "revision": null in the file if its weights are the same'


def _matrix(value: Any, layers: int, heads: int, where: str) -> Matrix:
    _check_list(value, layers, "layers", where)
    for number, layer in enumerate(value):
        _check_list(layer, heads, "heads", f"{where}, layer {number}")
        for head, tau in enumerate(layer):
            if (
                isinstance(tau, bool)
                or not isinstance(tau, int | float)
                or not 0 < tau <= sys.float_info.max
            ):
                raise RequestError(
                    f"{where}, layer {number}, head {head}: {tau} is not a temperature, a finite "
                    "number above 0."
                )
    return tuple(tuple(map(float, layer)) for layer in value)


def _check_list(value: Any, count: int, kind: str, where: str) -> None:
    if not isinstance(value, list | tuple):
        raise RequestError(f"{where}: expected a list of {count} {kind}, not {value}.")
    if len(value) != count:
        raise RequestError(f"{where} has entries for {len(value)} {kind}, not {count}.")


def _lengths(value: Any, source: str) -> tuple[int, ...]:
    if value is None:
        return ()
    is_list = isinstance(value, list | tuple) and len(value) > 0
    counts: Sequence[int] = [_count(one, f"{source}: lengths") for one in value] if is_list else []
    if not is_list or sorted(set(counts)) != list(counts):
        raise RequestError(
            f"{source}: lengths={value} is not a list of rising numbers of tokens; null: τ does "
            "not depend on length."
        )
    return tuple(counts)


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{where}: {value} is not a whole number of at least 1.")
    return value
