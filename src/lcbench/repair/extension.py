"""Context extensions, as requested: how a model reads more tokens of a text, without training.

`positions` applies those of a table of absolute positions, `rotary` those of rotary positions; here
nothing imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError, did_you_mean
from lcbench.repair.change import Applied, Change
from lcbench.repair.stretch import Method, Stretch
from lcbench.repair.values import check_options, number, shown

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lcbench.tempscale.policy import ModelShape, PositionKind

_METHODS: Mapping[Method, tuple[PositionKind | None, tuple[str, ...]]] = {
    "window": (None, ("short",)),
    "gp": ("absolute", ("from",)),
    "rp": ("absolute", ("from",)),
    "pi": ("absolute", ("from", "short")),
    "linear": ("rotary", ("from",)),
    "ntk": ("rotary", ("from", "lambda")),
    "yarn": ("rotary", ("from",)),
    "longrope": ("rotary", ()),
    "selfextend": ("rotary", ("from", "group", "neighbors")),
}
"""The kind of positions that a method is for (None: any), and its options."""
# What suits each kind of positions, given the number of tokens.
_SUITABLE: Mapping[PositionKind, str] = {
    "absolute": "{{pi: {0}}}, {{gp: {0}}} or {{rp: {0}}}",
    "rotary": "{{linear: {0}}}, {{ntk: {0}}}, {{yarn: {0}}} or {{selfextend: {0}}}",
    "relative": "{{window: {0}}}",
    "alibi": "{{window: {0}}}",
}
_NAMES: Mapping[PositionKind, str] = {
    "absolute": "absolute, rows of a table",
    "rotary": "rotary",
    "relative": "relative, buckets of distances, and do not limit what it reads",
    "alibi": "linear biases (ALiBi), and do not limit what it reads",
}
_EXAMPLES = (
    "Extensions are {pi: 4096}, {gp: 4096} and {rp: 4096} for absolute positions, {linear: 4096}, "
    "{ntk: 4096}, {yarn: 4096}, {longrope: 4096} and {selfextend: 4096} for rotary ones, and "
    "{window: 512} where a model has more positions than it reads; several: "
    "'extend=[null,{pi: 1024},{rp: 1024}]'"
)


@dataclass(frozen=True)
class Extension(Stretch, Change):
    """A way to read more tokens of a text than a model was made for; see `Stretch`."""

    def resolve(self, shape: ModelShape) -> Extension:
        """Return the extension for a model, without options that are its defaults.

        Raises:
            RequestError: it does not suit the model's positions or window.
        """
        written, kind = f"extend={shown(self.written())}", shape.position_kind
        needed = _METHODS[self.method][0]
        if kind is not None and needed not in (None, kind):
            raise RequestError(
                f"{written}: the model's positions are {_NAMES[kind]}; {self.method} is for "
                f"{needed} ones. Suitable: extend={_SUITABLE[kind].format(self.window)}."
            )
        if self.step is not None:
            self._check_step(shape, written)
        positions, own = shape.positions, shape.window
        changes = self.start is not None or self.step is not None
        if own is not None and (self.window < own or (self.window == own and not changes)):
            raise RequestError(
                f"{written}: the model reads {own} tokens of a text without it; name more, or "
                "fewer as model.window, which is part of the protocol."
            )
        if own is None and kind is not None:
            raise RequestError(f"{written}: the model reads whole texts without it.")
        if self.method in ("window", "longrope"):
            if positions is not None and self.window > max(positions, own or 0):
                suitable = _SUITABLE[kind or "absolute"].format(self.window)
                raise RequestError(
                    f"{written}: the model has positions for {positions} tokens. Beyond them: "
                    f"extend={suitable}."
                )
            return self
        if positions is None:
            return self
        start = positions if self.start is None else self.start
        if start > positions:
            raise RequestError(
                f"{written}: the model has positions for {positions} tokens, not for {start}."
            )
        if self.window <= start:
            raise RequestError(
                f"{written}: the model has positions for {positions} tokens, so nothing has to be "
                f"extended: extend={{window: {self.window}}} reads as many."
            )
        if self.method == "selfextend" and self.window > self.reach(start):
            raise RequestError(
                f"{written}: with group {self.groups(start)[0]} and neighbors "
                f"{self.groups(start)[1]}, distances are at most {start} in texts of "
                f"{self.reach(start)} tokens. Name a larger group or fewer neighbors."
            )
        plain = replace(self, group=None, neighbors=None)
        return replace(
            self,
            start=None if start == positions else start,
            group=None if self.group == plain.groups(start)[0] else self.group,
            neighbors=None if self.neighbors == plain.groups(start)[1] else self.neighbors,
        )

    def _check_step(self, shape: ModelShape, written: str) -> None:
        """Refuse positions at a distance for a model that has no table of them, or too few."""
        if shape.position_kind not in (None, "absolute"):
            raise RequestError(
                f"{written}: the model's positions are {_NAMES[shape.position_kind]}; short: "
                f"{self.step} is for absolute ones."
            )
        if shape.positions is not None and shape.positions < 2 * (self.step or 1):
            raise RequestError(
                f"{written}: the model has positions for {shape.positions} tokens, too few for "
                f"every {self.step}th of them."
            )

    def spares(self, window: int | None) -> int:
        """Return up to how many tokens texts keep their positions; see `Change.spares`."""
        keeps = self.method in ("window", "rp") or (self.method == "pi" and self.kept)
        if window is None or self.step is not None or not keeps:
            return 0
        return window if self.start is None else min(window, self.start)

    def apply(self, model: SentenceTransformer) -> Applied:
        """Change a model's positions, and check them; its tokenizer still reads its own window.

        Raises:
            InjectionError: the model has no such positions, or does not compute as expected.
        """
        from lcbench.repair.positions import extend_table, open_window
        from lcbench.repair.rotary import extend_rotary
        from lcbench.repair.selfextend import extend_by_groups

        if self.method == "window":
            return open_window(model, self)
        if self.method == "selfextend":
            return extend_by_groups(model, self)
        if _METHODS[self.method][0] == "absolute":
            return extend_table(model, self)
        return extend_rotary(model, self)


def parse(value: Any) -> Extension:
    """Return the extension that a value of `extend=` stands for.

    Raises:
        RequestError: it is none.
    """
    written = f"extend={shown(value)}"
    if not isinstance(value, Mapping) or not value:
        raise RequestError(f"{written} is not an extension. {_EXAMPLES}.")
    given = {str(key): option for key, option in value.items()}
    if "dynamic" in given:
        raise RequestError(
            f"{written}: dynamic scaling goes by the longest text that was read before, so that an "
            f"embedding would depend on other texts. ntk and yarn are fixed: "
            f"extend={{ntk: {shown(given['dynamic'])}}}."
        )
    methods = [key for key in given if key in _METHODS]
    if not methods:
        key = next(iter(given))
        near = did_you_mean(key, _METHODS)
        raise RequestError(f"{written}: {key} is not an extension.{near} {_EXAMPLES}.")
    if len(methods) > 1:
        listed = ",".join(shown({one: given[one]}) for one in methods)
        raise RequestError(
            f"{written}: one method at a time, {' or '.join(methods)}; to compare them, a list: "
            f"'extend=[{listed}]'."
        )
    method: Method = methods[0]  # type: ignore[assignment]
    check_options([key for key in given if key != method], _METHODS[method][1], written, method)
    for key, least in ((method, 2), ("from", 2), ("group", 1), ("neighbors", 1)):
        count = given.get(key)
        if count is not None and (type(count) is not int or count < least):
            what = "the number of tokens to read" if key == method else key
            raise RequestError(
                f"{written}: {what} is {shown(count)}, not a whole number of at least {least}."
            )
    if given[method] is None:
        raise RequestError(f"{written}: {method} takes the number of tokens to read: 4096.")
    short = given.get("short")
    if method == "window" and short is not None and (type(short) is not int or short < 2):
        raise RequestError(
            f"{written}: short is {shown(short)}, not the distance between positions, a whole "
            "number of at least 2."
        )
    if method != "window" and short not in (None, "kept"):
        raise RequestError(f"{written}: short takes kept, or is omitted.")
    scale = given.get("lambda")
    if scale is not None:
        scale = number(scale, written, "lambda")
        if not 1 < scale < 1e9:
            raise RequestError(f"{written}: lambda is a number above 1, by which θ is multiplied.")
    return Extension(
        method,
        given[method],
        start=given.get("from"),
        kept=short == "kept",
        step=short if method == "window" else None,
        scale=scale,
        group=given.get("group"),
        neighbors=given.get("neighbors"),
    )
