"""A repair of length collapse, as applied in a cell, and its name in results.

The parts of a repair are applied in this order: the temperature while a text is encoded; the
correction to its embedding, which is then scaled to length 1. The store keeps embeddings as the
model returns them, so that all corrections at one temperature share them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcbench.errors import RequestError, did_you_mean
from lcbench.repair.correction import Correction
from lcbench.repair.correction import parse as parse_correction
from lcbench.tempscale.policy import BASELINE, ModelShape, Policy, Role
from lcbench.tempscale.policy import parse as parse_policy
from lcbench.tempscale.policy import parse_all as parse_policies

# Maximum length of an experiment's folder name; mteb uses a digest for longer ones.
_LONGEST_NAME = 200
# The temperature where neither it nor another part is asked for.
_DEFAULT_TAU = 0.8
_PARTS = ("tau", "correct")
# Between the parts of a canonical name. No part contains it.
_AND = " + "


@dataclass(frozen=True)
class Repair:
    """A repair against length collapse; an empty one is the baseline.

    Attributes:
        policy: temperature policy.
        correction: correction of the embeddings, if any.
    """

    policy: Policy = BASELINE
    correction: Correction | None = None

    @property
    def parts(self) -> Mapping[str, str]:
        """The differences from the baseline in canonical form: mteb's `experiment_kwargs`."""
        parts = {} if self.policy.is_baseline else {"tau": self.policy.canonical}
        if self.correction is not None:
            parts["correct"] = self.correction.canonical
        return parts

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
        return len({self.policy.for_role(role) for role in roles}) > 1

    def resolve(self, shape: ModelShape) -> Repair:
        """Return the equivalent repair for a model, simplified if possible.

        Raises:
            RequestError: it names a layer, a length or a component that the model does not have.
        """
        if self.correction is not None and shape.dimensions is not None:
            self.correction.check(shape.dimensions)
        return Repair(self.policy.resolve(shape), self.correction)

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
        if equals and key in _PARTS:
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
    named += [value for key, value in sorted(parts.items()) if key != "tau"]
    return _AND.join(named) or f"τ = {BASELINE.canonical}"


def parse_all(
    tau: Any, correct: Any = None, repairs: Any = None, *, keeps_bias: bool = False
) -> tuple[Repair, ...]:
    """Return the repairs of a request, each once, in the order given, after the baseline.

    Args:
        tau: value of `tau=`; None: 0.8, or 1 with `correct` or `repairs`.
        correct: value of `correct=`, a correction or a list in which null is none. Each is combined
            with each temperature.
        repairs: value of `repairs=`, a list of combinations instead of `tau` and `correct`.
        keeps_bias: whether a position bias is left undivided.

    Raises:
        RequestError: one of them is not valid, or they exclude each other.
    """
    if repairs is not None:
        for key, value in (("tau", tau), ("correct", correct)):
            if value is not None:
                raise RequestError(
                    f"{key}={_shown(value)} and repairs=: repairs lists combinations, each with "
                    f"its own {key} ('repairs=[{{tau: 0.8}}, {{tau: 0.8, correct: centre}}]'). "
                    f"Omit one of them, or {key}=null where a sweep has it."
                )
        listed = repairs if isinstance(repairs, list | tuple) else [repairs]
        if not listed:
            raise RequestError("repairs=[] is empty: 'repairs=[{tau: 0.8, correct: centre}]'.")
        asked = [parse(one, keeps_bias=keeps_bias) for one in listed]
        return tuple(dict.fromkeys([NO_REPAIR, *asked]))
    if tau is None:
        tau = _DEFAULT_TAU if correct is None else BASELINE.written()
    policies = parse_policies(tau, keeps_bias=keeps_bias)
    corrections = _corrections(correct)
    asked = [Repair(policy, one) for policy in policies for one in corrections]
    return tuple(dict.fromkeys([NO_REPAIR, *asked]))


def parse_one(tau: Any, correct: Any, *, keeps_bias: bool = False) -> Repair:
    """Return the one repair of an exported model; the values are those of `parse_all`.

    Raises:
        RequestError: one of them is a list, or not valid.
    """
    for key, what, value in (("tau", "temperature", tau), ("correct", "correction", correct)):
        if isinstance(value, list | tuple):
            raise RequestError(f"{key}={_shown(value)}: a model is exported with one {what}.")
    return parse_all(tau, correct, keeps_bias=keeps_bias)[-1]


def parse(value: Any, *, keeps_bias: bool = False) -> Repair:
    """Return the repair that an entry of `repairs=` stands for.

    Raises:
        RequestError: it is not a mapping of parts to one value each.
    """
    written = f"repairs: {_shown(value)}"
    if not isinstance(value, Mapping) or not value:
        raise RequestError(
            f"{written} is not a combination of parts: {{tau: 0.8, correct: centre}}."
        )
    for key, part in value.items():
        if key not in _PARTS:
            near = did_you_mean(str(key), _PARTS)
            raise RequestError(f"{written}: the parts are {' and '.join(_PARTS)}, not {key}.{near}")
        if isinstance(part, list | tuple):
            raise RequestError(
                f"{written}: one {key} in each combination; several are several combinations: "
                f"'repairs=[{', '.join(_shown({**value, key: one}) for one in part)}]'."
            )
    tau, correct = value.get("tau"), value.get("correct")
    return Repair(
        BASELINE if tau is None else parse_policy(tau, keeps_bias=keeps_bias),
        None if correct is None else parse_correction(correct),
    )


def experiment_folder(parts: Mapping[str, str]) -> str:
    """Return mteb's folder name for an experiment: its parts, or a digest of them."""
    name = "__".join(f"{key}_{value}" for key, value in sorted(parts.items()))
    if len(name) <= _LONGEST_NAME:
        return name
    return f"exp_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def canonical_of_folder(name: str) -> str:
    """Return the name of a repair by mteb's folder of its results; a digest stays one."""
    named = (part.partition("_") for part in name.split("__"))
    parts = {key: value for key, _, value in named if key in _PARTS}
    return canonical_of(parts) if parts else name


def _corrections(value: Any) -> list[Correction | None]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise RequestError("correct=[] is empty: 'correct=[null,centre,{abtt: 3}]'.")
    return [None if one is None else parse_correction(one) for one in values]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_shown(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return "null" if value is None else str(value)
