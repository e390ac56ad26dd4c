"""Temperature policies, which assign τ to texts, and their canonical names in results.

Of a model they know only its `ModelShape`; `inject` applies a policy to a model.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcbench.errors import RequestError, did_you_mean
from lcbench.tempscale.heads import HeadTemperatures, read_temperatures, temperatures_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Role = Literal["query", "document"]
PositionKind = Literal["absolute", "rotary", "relative", "alibi"]
"""Rows of a table, rotations of queries and keys, buckets of distances, linear biases."""
Temperature = float | tuple[float, ...]
"""The temperature of a layer: a number, or one for each query head."""

_EXAMPLES = (
    "write a temperature (tau=0.8), a policy ('tau={query: 0.8, document: 1.0}', "
    "'tau={layers: {0: 1.0, 6: 0.8}}', 'tau={length: {0: 1.0, 256: 0.9}}', 'tau={length: logn}', "
    "'tau={heads: FILE}') "
    "or a list of these ('tau=[0.9,0.8]')"
)
# The window of the models in the paper.
_BASE = 512


@dataclass(frozen=True)
class ModelShape:
    """Describes the properties of a model that repairs depend on.

    Attributes:
        layers: number of attention layers; None: not stated in its configuration.
        window: the most tokens it reads of a text; None: not limited.
        position_bias: whether its logits have a position bias of their own (T5, MPNet).
        dimensions: of an embedding; None: its files do not say.
        positions: the most tokens it has positions for; None: not limited.
        position_kind: how a token's position enters the model; None: unknown.
        heads: number of query heads in each layer; None: its configuration does not say.
        head_size: dimensions of a query in one head; None: its configuration does not say.
        name: name in results; None: not known, as of a model that was loaded elsewhere.
        revision: revision in results, if the name is known.
        own_softmax: whether its layers compute their own softmax (MPNet, DeBERTa), where only a
            temperature can be applied.
    """

    layers: int | None
    window: int | None
    position_bias: bool
    dimensions: int | None = None
    positions: int | None = None
    position_kind: PositionKind | None = None
    heads: int | None = None
    head_size: int | None = None
    name: str | None = None
    revision: str | None = None
    own_softmax: bool = False


@dataclass(frozen=True)
class Policy(ABC):
    """Assigns a temperature to each text.

    Attributes:
        keeps_bias: whether a position bias is not divided (softmax(scale·QKᵀ/τ + bias)), instead of
            divided along with the logits (softmax((scale·QKᵀ + bias)/τ), as in the authors' code).
    """

    keeps_bias: bool = field(default=False, kw_only=True)

    @property
    def canonical(self) -> str:
        """Return a name without `:` and `/`, the same however the policy was written."""
        return self._name() + ("_bias=kept" if self.keeps_bias and not self.is_baseline else "")

    @abstractmethod
    def written(self) -> Any:
        """Return it as `tau=` has it, so that `parse` gives it back; whether it keeps a bias apart.

        JSON types only.
        """

    @property
    def is_baseline(self) -> bool:
        """Return whether attention is unchanged for every text."""
        return set(self.values()) == {1.0}

    @abstractmethod
    def _name(self) -> str: ...

    @abstractmethod
    def values(self) -> tuple[float, ...]:
        """Return the temperatures that some text or layer can get (for a formula, examples)."""

    def for_role(self, role: Role) -> Policy:
        """Return the policy for the texts of one role."""
        return self

    def of_layers(self, count: int) -> tuple[Temperature, ...]:
        """Return the temperature of each of `count` layers; 1 where texts differ by length."""
        return (1.0,) * count

    @property
    def by_head(self) -> bool:
        """Return whether heads have temperatures of their own."""
        return False

    @property
    def by_length(self) -> bool:
        """Return whether a text's temperature depends on its length."""
        return self.of_length(1) is not None

    def of_length(self, tokens: int) -> float | None:
        """Return the temperature of a text of so many tokens; None where it has not just one."""
        return None

    @property
    def spares(self) -> int:
        """Return up to how many tokens every text has τ = 1, for a policy by length; or 0."""
        return 0

    def of_lengths(self, longest: int) -> NDArray[Any]:
        """Return τ for texts of 0 to `longest` tokens: [longest + 1, layers or 1, heads or 1]."""
        import numpy as np

        taus = [self.of_length(tokens) or 1.0 for tokens in range(longest + 1)]
        return np.array(taus).reshape(-1, 1, 1)

    def examples(self) -> NDArray[Any]:
        """Return `values` by layer and head where these differ: [n, layers or 1, heads or 1]."""
        import numpy as np

        return np.array(self.values()).reshape(-1, 1, 1)

    def resolve(self, shape: ModelShape) -> Policy:
        """Return the policy for a model, simplified if possible.

        Raises:
            RequestError: it names a layer or a length that the model does not have.
        """
        simple = self._resolve(shape)
        if simple.is_baseline:
            return BASELINE
        return simple if shape.position_bias else replace(simple, keeps_bias=False)

    def _resolve(self, shape: ModelShape) -> Policy:
        return self


@dataclass(frozen=True)
class Constant(Policy):
    """Gives every text and layer one temperature: A = softmax(logits / tau)."""

    tau: float

    def written(self) -> float:
        """Return the temperature."""
        return self.tau

    def _name(self) -> str:
        return decimal(self.tau)

    def values(self) -> tuple[float, ...]:
        """Return the temperature."""
        return (self.tau,)

    def of_layers(self, count: int) -> tuple[float, ...]:
        """Return the temperature for each layer."""
        return (self.tau,) * count


BASELINE = Constant(1.0)


@dataclass(frozen=True)
class ByRole(Policy):
    """Gives queries and documents a temperature each (the paper's Table 2, Figures 9 and 15)."""

    query: float
    document: float

    def written(self) -> dict[str, float]:
        """Return both temperatures by role."""
        return {"query": self.query, "document": self.document}

    def _name(self) -> str:
        return f"query={decimal(self.query)},document={decimal(self.document)}"

    def values(self) -> tuple[float, ...]:
        """Return both temperatures, the queries' first."""
        return (self.query, self.document)

    def for_role(self, role: Role) -> Policy:
        """Return the constant of a role."""
        tau = self.query if role == "query" else self.document
        return Constant(tau, keeps_bias=self.keeps_bias)


@dataclass(frozen=True)
class ByLayer(Policy):
    """Gives layers a temperature from a layer on: ((0, 1.0), (6, 0.8)). Layers count from 0."""

    steps: tuple[tuple[int, float], ...]

    def written(self) -> dict[str, dict[str, float]]:
        """Return the steps by layer."""
        return {"layers": {str(begin): tau for begin, tau in self.steps}}

    def _name(self) -> str:
        return f"layers_{_steps_name(self.steps)}"

    def values(self) -> tuple[float, ...]:
        """Return the temperature of each step."""
        return tuple(tau for _, tau in self.steps)

    def of_layers(self, count: int) -> tuple[float, ...]:
        """Return the temperature of each layer."""
        return tuple(_step(self.steps, layer) for layer in range(count))

    def _resolve(self, shape: ModelShape) -> Policy:
        last = self.steps[-1][0]
        if shape.layers is not None and last >= shape.layers:
            raise RequestError(
                f"tau={{layers: {_written(self.steps)}}}: the model has no layer {last}; "
                f"its layers are 0 to {shape.layers - 1}."
            )
        return self


@dataclass(frozen=True)
class ByLength(Policy):
    """Gives texts a temperature from a length on: ((0, 1.0), (256, 0.9)).

    Length is in tokens that the model reads: after truncation, special tokens included.
    """

    steps: tuple[tuple[int, float], ...]

    def written(self) -> dict[str, dict[str, float]]:
        """Return the steps by length."""
        return {"length": {str(begin): tau for begin, tau in self.steps}}

    def _name(self) -> str:
        return f"length_{_steps_name(self.steps)}"

    def values(self) -> tuple[float, ...]:
        """Return the temperature of each step."""
        return tuple(tau for _, tau in self.steps)

    def of_length(self, tokens: int) -> float:
        """Return the temperature of a text of so many tokens."""
        return _step(self.steps, tokens)

    @property
    def spares(self) -> int:
        """Return the last length, in tokens, before the first temperature other than 1."""
        return next(begin for begin, tau in (*self.steps, (0, 0.0)) if tau != 1) - 1

    def _resolve(self, shape: ModelShape) -> Policy:
        last = self.steps[-1][0]
        if shape.window is not None and last > shape.window:
            raise RequestError(
                f"tau={{length: {_written(self.steps)}}}: no text has {last} tokens, since the "
                f"model reads at most {shape.window} of one (model.window)."
            )
        return self


def _logn(tokens: int, base: int, _: int) -> float:
    """Return log base / log n: logits times log n (kexue.fm/archives/8823; LongEmbed)."""
    return math.log(base) / math.log(tokens)


def _infoscale(tokens: int, base: int, head_size: int) -> float:
    """Return √((1 − base^(−2/d)) / (1 − n^(−2/d))) for heads of d dimensions (InfoScale)."""
    power = -2 / head_size
    return math.sqrt(math.expm1(power * math.log(base)) / math.expm1(power * math.log(tokens)))


def _yarn(tokens: int, base: int, _: int) -> float:
    """Return (0.1 · ln(n / base) + 1)^−2, YaRN's temperature (arXiv:2309.00071)."""
    return (0.1 * math.log(tokens / base) + 1) ** -2


_FORMULAS = {"logn": _logn, "infoscale": _infoscale, "yarn": _yarn}


@dataclass(frozen=True)
class ByFormula(Policy):
    """Gives texts longer than a base a temperature below 1, and others 1; length as in `ByLength`.

    Attributes:
        formula: `logn`, `infoscale` or `yarn`.
        base: the length from which texts get another temperature than 1.
        head_size: dimensions of an attention head, for InfoScale; None: not yet known, or unused.
    """

    formula: str
    base: int = _BASE
    head_size: int | None = None

    def written(self) -> dict[str, dict[str, int]]:
        """Return the formula and its base."""
        return {"length": {self.formula: self.base}}

    def _name(self) -> str:
        return f"length_{self.formula}_{self.base}"

    def values(self) -> tuple[float, ...]:
        """Return the temperatures at the base and at eight times its length."""
        return (1.0, self._at(8 * self.base, self.head_size or 64))

    def of_length(self, tokens: int) -> float:
        """Return the temperature of a text of so many tokens.

        Raises:
            RequestError: it depends on the size of the heads, which is not known.
        """
        if self._needs_head_size and self.head_size is None:
            raise RequestError(
                f"tau={{length: {{{self.formula}: {self.base}}}}} depends on the size of the "
                "attention heads, which the model's configuration does not state (head_dim, or "
                "hidden_size and num_attention_heads)."
            )
        return self._at(tokens, self.head_size or 1)

    @property
    def by_length(self) -> bool:
        """Return True: a text's temperature depends on its length."""
        return True

    @property
    def spares(self) -> int:
        """Return the base, up to which every text has τ = 1."""
        return self.base

    @property
    def _needs_head_size(self) -> bool:
        return self.formula == "infoscale"

    def _at(self, tokens: int, head_size: int) -> float:
        return 1.0 if tokens <= self.base else _FORMULAS[self.formula](tokens, self.base, head_size)

    def _resolve(self, shape: ModelShape) -> Policy:
        if shape.window is not None and shape.window <= self.base:
            return BASELINE
        return replace(self, head_size=shape.head_size) if self._needs_head_size else self


@dataclass(frozen=True)
class ByHead(Policy):
    """Gives each head of each layer a temperature, possibly by length; see `HeadTemperatures`."""

    temperatures: HeadTemperatures

    def written(self) -> dict[str, dict[str, Any]]:
        """Return the content of the file."""
        return {"heads": self.temperatures.content()}

    def _name(self) -> str:
        return f"heads_{self.temperatures.digest}"

    def values(self) -> tuple[float, ...]:
        """Return the different temperatures of heads, at the lengths for which they are given."""
        matrices = self.temperatures.matrices
        return tuple(sorted({tau for matrix in matrices for layer in matrix for tau in layer}))

    def of_layers(self, count: int) -> tuple[Temperature, ...]:
        """Return the temperatures of the heads of each layer."""
        return (1.0,) * count if self.by_length else self.temperatures.matrices[0]

    @property
    def by_head(self) -> bool:
        """Return whether heads have temperatures of their own."""
        return True

    @property
    def by_length(self) -> bool:
        """Return whether a text's temperatures depend on its length."""
        return bool(self.temperatures.lengths)

    def of_lengths(self, longest: int) -> NDArray[Any]:
        """Return τ for texts of 0 to `longest` tokens: [longest + 1, layers, heads]."""
        return self.temperatures.by_length(longest)

    def examples(self) -> NDArray[Any]:
        """Return the temperatures at the lengths for which they are given."""
        import numpy as np

        return np.array(self.temperatures.matrices)

    def _resolve(self, shape: ModelShape) -> Policy:
        self.temperatures.refuse_other(shape.name, shape.revision, shape.layers, shape.heads)
        if self.by_length or any(len(set(layer)) > 1 for layer in self.temperatures.matrices[0]):
            return self
        steps = _changes(enumerate(layer[0] for layer in self.temperatures.matrices[0]))
        if len(steps) == 1:
            return Constant(steps[0][1], keeps_bias=self.keeps_bias)
        return ByLayer(steps, keeps_bias=self.keeps_bias)


def parse(value: Any, *, keeps_bias: bool = False) -> Policy:
    """Return the policy that a value of `tau=` stands for.

    A policy that is the same constant for every text is that constant; a file of temperatures by
    head is simplified only by `resolve`, which checks that it is for the model.

    Raises:
        RequestError: neither a temperature nor a policy.
    """
    if isinstance(value, Mapping):
        policy = _parse_mapping(value)
        if len(set(policy.values())) == 1 and not policy.by_head:
            policy = Constant(policy.values()[0])
    else:
        policy = Constant(_temperature(value))
    return replace(policy, keeps_bias=keeps_bias and not policy.is_baseline)


def parse_all(value: Any, *, keeps_bias: bool = False) -> tuple[Policy, ...]:
    """Return the policies of `tau=`, each once, in the order given.

    Raises:
        RequestError: one of them is not a policy, or the list is empty.
    """
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise RequestError(f"tau=[] is empty; {_EXAMPLES}.")
    policies = (parse(one, keeps_bias=keeps_bias) for one in values)
    return tuple(dict.fromkeys(policies))


def _parse_mapping(value: Mapping[Any, Any]) -> Policy:
    keys = {str(key) for key in value}
    written = f"tau={_shown(value)}"
    if keys and keys <= {"query", "document"}:
        # A role that is not named has τ = 1.
        taus = {str(key): _temperature(item, written) for key, item in value.items()}
        return ByRole(taus.get("query", 1.0), taus.get("document", 1.0))
    if keys == {"layers"}:
        return ByLayer(_parse_steps(value["layers"], written, "layers"))
    if keys == {"length"}:
        return _parse_length(value["length"], written)
    if keys == {"heads"}:
        return _parse_heads(value["heads"], written)
    known = ("query", "document", "layers", "length", "heads")
    near = did_you_mean(next(iter(keys - set(known)), ""), known)
    raise RequestError(f"{written} is not a policy.{near} To be sure: {_EXAMPLES}.")


def _shown(value: Any) -> str:
    """Return a value as the command line has it."""
    if not isinstance(value, Mapping):
        return str(value)
    return f"{{{', '.join(f'{key}: {_shown(one)}' for key, one in value.items())}}}"


def _parse_heads(value: Any, written: str) -> Policy:
    if isinstance(value, Mapping):
        return ByHead(temperatures_of(value))
    if not isinstance(value, str | PathLike) or not fspath(value):
        raise RequestError(
            f"{written}: heads takes a file of temperatures by layer and head, as `lcbench tune` "
            "writes it."
        )
    return ByHead(read_temperatures(Path(value)))


def _parse_length(value: Any, written: str) -> Policy:
    if isinstance(value, str) and value in _FORMULAS:
        return ByFormula(value)
    if isinstance(value, str):
        near = did_you_mean(value, _FORMULAS)
        raise RequestError(
            f"{written}: length takes steps, such as {{0: 1.0, 256: 0.8}}, or one of "
            f"{', '.join(_FORMULAS)}, with a base ({{logn: {_BASE}}}) or without.{near}"
        )
    if isinstance(value, Mapping) and len(value) == 1:
        ((formula, base),) = value.items()
        if formula in _FORMULAS:
            if isinstance(base, bool) or not isinstance(base, int) or base < 2:
                raise RequestError(f"{written}: {formula} takes a length of at least 2 tokens.")
            return ByFormula(formula, base)
    return ByLength(_parse_steps(value, written, "length"))


def _parse_steps(value: Any, written: str, kind: str) -> tuple[tuple[int, float], ...]:
    """Return steps sorted by where they begin, from 0 on, without those that change nothing."""
    if not isinstance(value, Mapping) or not value:
        raise RequestError(f"{written}: {kind} takes steps, such as {{0: 1.0, 6: 0.8}}.")
    steps: dict[int, float] = {0: 1.0}
    for begin, tau in value.items():
        number = int(begin) if isinstance(begin, str) and begin.isdigit() else begin
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise RequestError(f"{written}: {begin} is not a whole number of at least 0.")
        steps[number] = _temperature(tau, written)
    return _changes(sorted(steps.items()))


def _changes(steps: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Return ascending steps without those at which the temperature stays the same."""
    changes: list[tuple[int, float]] = []
    for step in steps:
        if not changes or step[1] != changes[-1][1]:
            changes.append(step)
    return tuple(changes)


def _temperature(value: Any, within: str | None = None) -> float:
    subject = f"tau={value}" if within is None else f"{within}: {value}"
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RequestError(f"{subject} is not a temperature; {_EXAMPLES}.") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{subject} is not a temperature; {_EXAMPLES}.")
    if not 0 < value <= sys.float_info.max:
        raise RequestError(
            f"{subject} is not a temperature: it divides the attention logits and must be a "
            f"finite number above 0 (1 = unchanged); {_EXAMPLES}."
        )
    return float(value)


def _step(steps: Sequence[tuple[int, float]], at: int) -> float:
    """Return the value of the last step that begins at or before `at`."""
    return [tau for begin, tau in steps if begin <= at][-1]


def decimal(value: float) -> str:
    """Return the shortest decimal form, with an exponent only for extremes: 0.80 is 0.8."""
    if value and not 1e-9 <= abs(value) < 1e9:
        return repr(value)  # 1e+300 would be a name of 301 digits
    return f"{Decimal(repr(value)).normalize():f}"


def _steps_name(steps: Iterable[tuple[int, float]]) -> str:
    return ",".join(f"{begin}={decimal(tau)}" for begin, tau in steps)


def _written(steps: Iterable[tuple[int, float]]) -> str:
    return f"{{{', '.join(f'{begin}: {decimal(tau)}' for begin, tau in steps)}}}"
