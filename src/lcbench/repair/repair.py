"""A repair of length collapse, as applied in a cell, and its name in results.

All parts but the correction are applied while a text is encoded, changes of the model before the
temperature; the correction to its embedding, which is then scaled to length 1. The store keeps
embeddings as the encoder returns them, so that all corrections of one encoding share them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lcbench.errors import RequestError, did_you_mean
from lcbench.repair import attend, gain
from lcbench.repair.attend import AttentionRepair
from lcbench.repair.change import Change, Part
from lcbench.repair.chunks import Chunks
from lcbench.repair.chunks import parse as parse_chunks
from lcbench.repair.correction import Correction
from lcbench.repair.correction import parse as parse_correction
from lcbench.repair.extension import Extension
from lcbench.repair.extension import parse as parse_extension
from lcbench.repair.gain import Gain
from lcbench.repair.values import shown
from lcbench.tempscale.policy import BASELINE, ModelShape, Policy, Role
from lcbench.tempscale.policy import parse as parse_policy

# Maximum length of an experiment's folder name; mteb uses a digest for longer ones.
_LONGEST_NAME = 200
# The temperature where neither it nor another part is asked for.
_DEFAULT_TAU = 0.8


class _Kind(NamedTuple):
    """A kind of part besides the temperature.

    Attributes:
        field: the attribute of `Repair`.
        parse: returns the part that a value stands for.
        example: a list of values, as the command line has it.
    """

    field: str
    parse: Callable[[Any], Part]
    example: str


_OTHERS: Mapping[str, _Kind] = {
    "extend": _Kind("extension", parse_extension, "[null,{pi: 1024},{rp: 1024}]"),
    "gain": _Kind("gain", gain.parse, gain.EXAMPLE),
    "attend": _Kind("attention", attend.parse, attend.EXAMPLE),
    "chunks": _Kind("chunks", parse_chunks, "[mean,{mean: 128},{max: 128}]"),
    "correct": _Kind("correction", parse_correction, "[null,centre,{abtt: 3}]"),
}
PARTS = ("tau", *_OTHERS)
"""Keys of the parts, in the order of a repair's name."""
EXAMPLES = {"tau": "[0.9,0.8]"} | {key: kind.example for key, kind in _OTHERS.items()}
"""A list of values of each part, as the command line has it."""
# Between the parts of a canonical name. No part contains it.
_AND = " + "


@dataclass(frozen=True)
class Repair:
    """A repair against length collapse; an empty one is the baseline.

    Attributes:
        policy: temperature policy.
        correction: correction of the embeddings, if any.
        extension: context extension, if any.
        gain: factors of LayerNorms and feed-forward networks, if any.
        attention: change of attention weights after the softmax, if any.
        chunks: chunks in which long texts are read, if any.
    """

    policy: Policy = BASELINE
    correction: Correction | None = None
    extension: Extension | None = None
    gain: Gain | None = None
    attention: AttentionRepair | None = None
    chunks: Chunks | None = None

    @property
    def others(self) -> Mapping[str, Part]:
        """The parts besides the temperature by key, in the order in which they are applied."""
        parts = {key: getattr(self, kind.field) for key, kind in _OTHERS.items()}
        return {key: part for key, part in parts.items() if part is not None}

    @property
    def changes(self) -> tuple[Change, ...]:
        """The parts that change a loaded model, besides its temperature."""
        return tuple(part for part in self.others.values() if isinstance(part, Change))

    @property
    def encoding(self) -> Repair:
        """The parts that are applied while a text is encoded: all but the correction."""
        return replace(self, correction=None)

    @property
    def of_model(self) -> Repair:
        """The parts that change the loaded model."""
        return replace(self, chunks=None, correction=None)

    @property
    def reads_chunks(self) -> bool:
        """Whether chunks go through the model on their own."""
        return self.chunks is not None and self.chunks.kind != "late"

    @property
    def parts(self) -> Mapping[str, str]:
        """The differences from the baseline in canonical form: mteb's `experiment_kwargs`."""
        parts = {} if self.policy.is_baseline else {"tau": self.policy.canonical}
        return parts | {key: part.canonical for key, part in self.others.items()}

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline."""
        return not self.parts

    @property
    def canonical(self) -> str:
        """The name in results, which is the same however the repair was written."""
        return canonical_of(self.parts)

    @property
    def depends_on_role(self) -> bool:
        """Whether queries are treated differently from documents."""
        roles: tuple[Role, ...] = ("query", "document")
        return len({self.for_role(role) for role in roles}) > 1

    def for_role(self, role: Role) -> Repair:
        """Return the repair for the texts of one role."""
        chunks = None if self.chunks is None else self.chunks.for_role(role)
        return replace(self, policy=self.policy.for_role(role), chunks=chunks)

    def window(self, own: int | None) -> int | None:
        """Return the most tokens of a text that a model reads under it; None: no limit.

        Args:
            own: the same without a repair.
        """
        return own if self.extension is None else self.extension.window

    def simpler(self, window: int | None) -> Iterator[tuple[int, Repair]]:
        """Yield simpler repairs under which short texts have the same embeddings, and how short.

        Each with the most tokens of such a text, if it is not read in chunks: a temperature by
        length may be 1, an extension may keep the positions of texts that fit the window.

        Args:
            window: the most tokens that the model reads of a text without a repair.
        """
        without: dict[str, tuple[int, Policy | None]] = {
            kind.field: (part.spares(window), None)
            for kind in _OTHERS.values()
            if isinstance(part := getattr(self, kind.field), Change)
        }
        without["policy"] = (self.policy.spares, BASELINE)
        without = {field: one for field, one in without.items() if one[0] > 0}
        for count in range(len(without), 0, -1):
            for fields in itertools.combinations(without, count):
                most = min(without[field][0] for field in fields)
                changes: dict[str, Any] = {field: without[field][1] for field in fields}
                yield most, replace(self.encoding, chunks=None, **changes)

    def resolve(self, shape: ModelShape) -> Repair:
        """Return the equivalent repair for a model, simplified if possible.

        Raises:
            RequestError: a part does not suit the model, or names a layer, a length or a component
                that it does not have.
        """
        read = replace(shape, window=self.window(shape.window))
        resolved = {
            _OTHERS[key].field: part.resolve(shape if key == "extend" else read)
            for key, part in self.others.items()
        }
        return Repair(self.policy.resolve(read), **resolved)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return label_of(self.canonical)


NO_REPAIR = Repair()


def canonical_of(parts: Mapping[str, str]) -> str:
    """Return the name of a repair in results: 1, 0.8, correct=centre, 0.8 + correct=centre.

    Args:
        parts: as in `Repair.parts`; temperatures stand for themselves.
    """
    named = [parts["tau"]] if "tau" in parts else []
    named += [f"{key}={value}" for key, value in sorted(parts.items()) if key != "tau"]
    return _AND.join(named) or BASELINE.canonical


def parts_of(canonical: str) -> dict[str, str]:
    """Return the parts of a repair by its name in results; none of the baseline."""
    parts = {}
    for one in canonical.split(_AND):
        key, equals, value = one.partition("=")
        if equals and key in PARTS:
            parts[key] = value
        elif one != BASELINE.canonical:
            parts["tau"] = one
    return parts


def label_of(canonical: str) -> str:
    """Return what tables call a repair: τ = 0.8, centre, τ = 0.8 + centre; the baseline is τ = 1.

    Args:
        canonical: name in results.
    """
    parts = parts_of(canonical)
    named = [f"τ = {parts['tau']}"] if "tau" in parts else []
    others = [(key, value) for key, value in sorted(parts.items()) if key != "tau"]
    named += [f"{key} {value}" if key == "chunks" else value for key, value in others]
    return _AND.join(named) or f"τ = {BASELINE.canonical}"


def parse_all(values: Mapping[str, Any], *, keeps_bias: bool = False) -> tuple[Repair, ...]:
    """Return the repairs of a request, each once, in the order given, after the baseline.

    Args:
        values: the value of each key of `PARTS`, a part or a list in which null is none, each of
            which is combined with each of the other keys; `tau` of None: 0.8, or 1 with another
            part. Or of `repairs` alone: a list of combinations.
        keeps_bias: whether a position bias is left undivided.

    Raises:
        RequestError: one of them is not valid, or they exclude each other.
    """
    given = {key: values[key] for key in PARTS if values.get(key) is not None}
    repairs = values.get("repairs")
    if repairs is not None:
        for key, value in given.items():
            raise RequestError(
                f"{key}={shown(value)} and repairs=: repairs lists combinations, each with "
                f"its own {key} ('repairs=[{{tau: 0.8}}, {{tau: 0.8, correct: centre}}]'). "
                f"Omit one of them, or {key}=null where a sweep has it."
            )
        listed = repairs if isinstance(repairs, list | tuple) else [repairs]
        if not listed:
            raise RequestError("repairs=[] is empty: 'repairs=[{tau: 0.8, correct: centre}]'.")
        asked = [parse(one, keeps_bias=keeps_bias) for one in listed]
        return tuple(dict.fromkeys([NO_REPAIR, *asked]))
    given.setdefault("tau", BASELINE.written() if given else _DEFAULT_TAU)
    listed = [_listed(key, given[key]) for key in PARTS if key in given]
    keys = [key for key in PARTS if key in given]
    asked = [
        _combined(dict(zip(keys, one, strict=True)), keeps_bias=keeps_bias)
        for one in itertools.product(*listed)
    ]
    return tuple(dict.fromkeys([NO_REPAIR, *asked]))


def parse_one(values: Mapping[str, Any], *, keeps_bias: bool = False) -> Repair:
    """Return the one repair of an exported model; the values are those of `parse_all`.

    Raises:
        RequestError: one of them is a list, or not valid.
    """
    for key in PARTS:
        if isinstance(value := values.get(key), list | tuple):
            raise RequestError(
                f"{key}={shown(value)}: a model is exported with one value of {key}."
            )
    return parse_all(values, keeps_bias=keeps_bias)[-1]


def parse(value: Any, *, keeps_bias: bool = False) -> Repair:
    """Return the repair that an entry of `repairs=` stands for.

    Raises:
        RequestError: it is not a mapping of parts to one value each.
    """
    written = f"repairs: {shown(value)}"
    if not isinstance(value, Mapping) or not value:
        raise RequestError(
            f"{written} is not a combination of parts: {{tau: 0.8, correct: centre}}."
        )
    for key, part in value.items():
        if key not in PARTS:
            near = did_you_mean(str(key), PARTS)
            raise RequestError(f"{written}: the parts are {', '.join(PARTS)}, not {key}.{near}")
        if isinstance(part, list | tuple):
            raise RequestError(
                f"{written}: one {key} in each combination; several are several combinations: "
                f"'repairs=[{', '.join(shown({**value, key: one}) for one in part)}]'."
            )
    return _combined(value, keeps_bias=keeps_bias)


def _combined(values: Mapping[str, Any], *, keeps_bias: bool) -> Repair:
    """Return the repair of one value of each key; of None, it has no such part."""
    tau = values.get("tau")
    others = {
        kind.field: kind.parse(values[key])
        for key, kind in _OTHERS.items()
        if values.get(key) is not None
    }
    policy = BASELINE if tau is None else parse_policy(tau, keeps_bias=keeps_bias)
    repair = Repair(policy, **others)  # type: ignore[arg-type]
    chunks, correction = repair.chunks, repair.correction
    if (
        chunks is not None
        and chunks.kind == "max"
        and correction is not None
        and correction.kind == "centre"
        and correction.number
    ):
        raise RequestError(
            f"correct={shown(correction.written())} with chunks={shown(chunks.written())}: means "
            "by length are of texts with one embedding each, and here each chunk has one: "
            "correct=centre."
        )
    return repair


def experiment_folder(parts: Mapping[str, str]) -> str:
    """Return mteb's folder name for an experiment: its parts, or a digest of them."""
    name = "__".join(f"{key}_{value}" for key, value in sorted(parts.items()))
    if len(name) <= _LONGEST_NAME:
        return name
    return f"exp_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def canonical_of_folder(name: str) -> str:
    """Return the name of a repair by mteb's folder of its results; a digest stays one."""
    named = (part.partition("_") for part in name.split("__"))
    parts = {key: value for key, _, value in named if key in PARTS}
    return canonical_of(parts) if parts else name


def _listed(key: str, value: Any) -> list[Any]:
    """Return the values of a key that are combined with those of the others."""
    if isinstance(value, list | tuple):
        if value:
            return list(value)
        raise RequestError(f"{key}=[] is empty: '{key}={EXAMPLES[key]}'.")
    return [value]
