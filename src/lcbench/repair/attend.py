"""Repairs that change attention weights after the softmax: `attend=`.

What they compute is in `tempscale.attnscale` and `tempscale.calibrate`; how a model comes to
compute it, in `tempscale.change`. Nothing here imports torch before a model is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.repair.change import Change
from lcbench.repair.values import check_options, kind_of, number, shown
from lcbench.tempscale.policy import decimal

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lcbench.tempscale.calibrate import Rows
    from lcbench.tempscale.change import ChangedAttention
    from lcbench.tempscale.policy import ModelShape

EXAMPLE = "[null,{attnscale: 0.2},{calibrate: {basket: 128, strength: 0.5}}]"

_EXAMPLES = (
    "Use {attnscale: 0.2}, calibrate or {calibrate: {basket: 128, strength: 0.5, first_layer: 6}}; "
    f"several: 'attend={EXAMPLE}'"
)
_KINDS = ("attnscale", "calibrate")
_OPTIONS = ("basket", "strength", "first_layer")


@dataclass(frozen=True)
class ScaledAttention(Change):
    """AttnScale in every layer: A' = M + (1 + w) (A − M), M the mean; see `tempscale.attnscale`.

    Attributes:
        w: strength; 0 changes nothing.
    """

    w: float

    @property
    def canonical(self) -> str:
        """The name in results; the same however it was written."""
        return f"attnscale={decimal(self.w)}"

    def written(self) -> dict[str, Any]:
        """Return it as `attend=` has it, so that `parse` gives it back; JSON types only."""
        return {"attnscale": self.w}

    def resolve(self, shape: ModelShape) -> ScaledAttention | None:
        """Return the part for a model; None: it changes nothing.

        Raises:
            RequestError: the model computes its own softmax.
        """
        if not self.w:
            return None
        _refuse_own_softmax(self, shape)
        return self

    def apply(self, model: SentenceTransformer) -> ChangedAttention:
        """Change a model's attention, with proof; see `Change.apply`."""
        from lcbench.tempscale.attnscale import AttnScale
        from lcbench.tempscale.change import ChangedAttention

        change = AttnScale(self.w)
        return ChangedAttention(model, f"attend={self}", lambda layers: [change] * layers)

    def __str__(self) -> str:
        return shown(self.written())


@dataclass(frozen=True)
class CalibratedAttention(Change):
    """Position calibration in the later layers; see `tempscale.calibrate`.

    Attributes:
        basket: number of tokens among which attention is not redistributed.
        strength: λ, in [0, 1]; 0 changes nothing.
        first_layer: first layer that is calibrated, from 0; None: the one in the middle.
    """

    basket: int = 128
    strength: float = 0.5
    first_layer: int | None = None

    @property
    def canonical(self) -> str:
        """The name in results; the same however it was written."""
        name = f"calibrate={self.basket},strength={decimal(self.strength)}"
        return name if self.first_layer is None else f"{name},first_layer={self.first_layer}"

    def written(self) -> dict[str, Any]:
        """Return it as `attend=` has it, so that `parse` gives it back; JSON types only."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        return {"calibrate": {name: one for name, one in options.items() if one is not None}}

    def resolve(self, shape: ModelShape) -> CalibratedAttention | None:
        """Return the part for a model, with its first layer; None: it changes nothing.

        Raises:
            RequestError: the model has no such layer, reads no text of more than one basket, or
                computes its own softmax.
        """
        if not self.strength:
            return None
        _refuse_own_softmax(self, shape)
        if shape.window is not None and shape.window <= self.basket:
            raise RequestError(
                f"attend={self}: the model reads at most {shape.window} tokens of a text, so no "
                "text has more than one basket and nothing would change."
            )
        if shape.layers is None:
            return self
        if self.first_layer is None:
            return replace(self, first_layer=shape.layers // 2)
        if self.first_layer >= shape.layers:
            raise RequestError(
                f"attend={self}: first_layer={self.first_layer}, but the model has the layers 0 "
                f"to {shape.layers - 1}."
            )
        return self

    def spares(self, window: int | None) -> int:
        """Return the size of a basket in tokens: attention is not redistributed within one."""
        return self.basket

    def apply(self, model: SentenceTransformer) -> ChangedAttention:
        """Change a model's attention, with proof; see `Change.apply`."""
        from lcbench.tempscale.calibrate import Calibration
        from lcbench.tempscale.change import ChangedAttention
        from lcbench.tempscale.unpadded import IMPLEMENTATION

        change = Calibration(self.basket, self.strength, _rows(model))

        def changes(layers: int) -> list[Calibration | None]:
            first = layers // 2 if self.first_layer is None else self.first_layer
            return [None] * first + [change] * (layers - first)

        back_ends = ("eager", "sdpa", IMPLEMENTATION)
        return ChangedAttention(model, f"attend={self}", changes, back_ends)

    def __str__(self) -> str:
        return shown(self.written())


AttentionRepair = ScaledAttention | CalibratedAttention


def parse(value: Any) -> AttentionRepair:
    """Return the part that a value of `attend=` stands for.

    Raises:
        RequestError: it is none.
    """
    written = f"attend={shown(value)}"
    kind, options = kind_of(value, "attend", "change of attention", _KINDS, _EXAMPLES)
    if kind == "attnscale":
        if options is None:
            raise RequestError(f"{written}: attnscale needs w: {{attnscale: 0.2}}.")
        return ScaledAttention(number(options, written, "w"))
    return _calibrated({} if options is None else options, written)


def _calibrated(options: Any, written: str) -> CalibratedAttention:
    if not isinstance(options, Mapping):
        options = {"basket": options}
    check_options(options, _OPTIONS, written, "calibrate")
    part = CalibratedAttention(**{key: one for key, one in options.items() if one is not None})
    if type(part.basket) is not int or part.basket < 1:
        raise RequestError(
            f"{written}: basket is a number of tokens of at least 1, not {shown(part.basket)}."
        )
    strength = number(part.strength, written, "strength")
    if not 0 <= strength <= 1:
        raise RequestError(
            f"{written}: strength is in [0, 1]: 0 leaves attention as it is, 1 gives all full "
            "baskets the same attention."
        )
    layer = part.first_layer
    if layer is not None and (type(layer) is not int or layer < 0):
        raise RequestError(f"{written}: first_layer is the number of a layer, from 0.")
    return replace(part, strength=strength)


def _refuse_own_softmax(part: AttentionRepair, shape: ModelShape) -> None:
    """Refuse models whose attention weights lcbench does not reach.

    Raises:
        RequestError: the model computes its own softmax.
    """
    if shape.own_softmax:
        raise RequestError(
            f"attend={part}: the model computes its own softmax (MPNet, DeBERTa), where only a "
            "temperature (tau=) can be applied."
        )


def _rows(model: SentenceTransformer) -> Rows:
    """Return which tokens' attention the embedding is made of: all tokens' unless one is pooled."""
    modes: set[Any] = set()
    for module in model.modules():
        mode = getattr(module, "pooling_mode", None)
        if mode is not None:
            modes |= {mode} if isinstance(mode, str) else set(mode)
            if not getattr(module, "include_prompt", True):
                # The first token after the prompt is pooled, of whose place layers know nothing.
                modes.add("after the prompt")
    if modes == {"cls"}:
        return "first"
    return "last" if modes == {"lasttoken"} else "all"
