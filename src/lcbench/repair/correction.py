"""Corrections of embeddings, as requested: which map, and on which texts it is fitted.

`fit` computes the map; nothing here imports numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.repair.added import load, package_of
from lcbench.repair.values import check_options, kind_of, shown
from lcbench.system.plugins import plugins

if TYPE_CHECKING:
    from lcbench.tasks.reference import Reference
    from lcbench.tempscale.policy import ModelShape

# One of `NUMBERS`, or what an installed package adds.
Kind = str

_EXAMPLES = (
    "Corrections are centre, {centre: {bins: 5}}, {abtt: 3}, whiten and {whiten: 128}; with the "
    "texts that one is fitted on: 'correct={centre: {on: docstrings}}'; several: "
    "'correct=[null,centre,{abtt: 3}]'"
)
NUMBERS: Mapping[str, str] = {"centre": "bins", "abtt": "components", "whiten": "dimensions"}
"""What the number of each kind is called as an option; `abtt` needs one."""
MOST_TEXTS = 10_000
"""Most texts that one is fitted on: ten times as many as the dimensions of most models."""


@dataclass(frozen=True)
class Correction:
    """A map that is fitted on unlabelled embeddings and applied to all embeddings.

    x is an embedding as the model returns it, μ the mean and C the covariance of those that it is
    fitted on. What remains is scaled to length 1.

    Attributes:
        kind: `centre`: x − μ; `abtt` (all but the top, arXiv:1702.01417): x − μ without its
            projection on the first principal components of C; `whiten`: C^(−1/2) (x − μ) in the
            basis of the principal components.
        number: of `centre`, the bins by length in tokens, each with a mean of its own, None: one
            mean; of `abtt`, the components that are removed; of `whiten`, the components that are
            kept, None: all.
        on: set of texts that it is fitted on for all tasks; None: each task's own texts.
        package: installed package that adds the kind, and its version; None: lcbench's own.
    """

    kind: Kind
    number: int | None = None
    on: Reference | None = None
    package: str | None = None

    @property
    def canonical(self) -> str:
        """The name in results, without `:` and `/`; the same however it was written."""
        name: str = self.kind
        if self.number is not None:
            name = f"{name}_bins={self.number}" if name == "centre" else f"{name}={self.number}"
        if self.package is not None:
            name = f"{name},package={self.package}"
        return name if self.on is None else f"{name},on={self.on}"

    @property
    def by_length(self) -> bool:
        """Whether fitting it takes the lengths of the texts."""
        return self.kind == "centre" and self.number is not None

    def written(self) -> str | dict[str, Any]:
        """Return it as `correct=` has it, so that `parse` gives it back; JSON types only."""
        options: dict[str, Any] = {}
        if self.number is not None:
            options[str(number_name(self.kind))] = self.number
        if self.on is not None:
            options["on"] = self.on.written()
        return {self.kind: options} if options else self.kind

    @property
    def example(self) -> str:
        """How to ask for it, fitted on a set of texts."""
        number = "" if self.number is None else f"{number_name(self.kind)}: {self.number}, "
        return f"'correct={{{self.kind}: {{{number}on: docstrings}}}}'"

    def check(self, dimensions: int) -> None:
        """Check that embeddings of so many dimensions can be corrected.

        Raises:
            RequestError: more components are removed or kept than there are.
        """
        if self.number is None or self.kind == "centre" or self.package is not None:
            return
        if self.kind == "abtt" and self.number >= dimensions:
            raise RequestError(
                f"correct={{abtt: {self.number}}} would leave nothing of embeddings of "
                f"{dimensions} dimensions: name fewer, about a hundredth of the dimensions "
                f"(correct={{abtt: {max(1, round(dimensions / 100))}}})."
            )
        if self.kind == "whiten" and self.number > dimensions:
            raise RequestError(
                f"correct={{whiten: {self.number}}}: embeddings of {dimensions} dimensions have no "
                f"more components than that; correct=whiten keeps all."
            )

    def resolve(self, shape: ModelShape) -> Correction:
        """Return itself, after `check` where the model says how many dimensions it has."""
        if shape.dimensions is not None:
            self.check(shape.dimensions)
        return self

    def __str__(self) -> str:
        return self.canonical


def parse(value: Any) -> Correction:
    """Return the correction that a value of `correct=` stands for.

    Raises:
        RequestError: it is none.
    """
    written = f"correct={shown(value)}"
    kinds = [*NUMBERS, *plugins("repairs")]
    kind, options = kind_of(value, "correct", "correction", kinds, _EXAMPLES)
    package = None if kind in NUMBERS else package_of(kind)
    number, on = _options(kind, options, written)
    if kind == "abtt" and number is None:
        raise RequestError(
            f"{written}: abtt needs the number of components to remove, about a hundredth of the "
            "dimensions: correct={abtt: 3}."
        )
    if on is not None:
        from lcbench.tasks.reference import read_reference

        return Correction(kind, number, read_reference(on), package)
    return Correction(kind, number, package=package)


def number_name(kind: Kind) -> str | None:
    """Return what the number of a kind is called as an option; None: it takes none.

    Raises:
        RequestError: it is neither lcbench's nor of an installed package.
    """
    if kind in NUMBERS:
        return NUMBERS[kind]
    return load(kind).number


def _options(
    kind: str, options: Any, written: str
) -> tuple[int | None, str | Mapping[str, Any] | None]:
    """Return the number of a kind, and the set of texts that it is fitted on."""
    name = number_name(kind)
    least = 2 if kind == "centre" else 1
    if kind not in NUMBERS:
        least = load(kind).least
    if options is None:
        options = {}
    elif not isinstance(options, Mapping):
        if kind == "centre":
            raise RequestError(
                f"{written}: for means by length, {{centre: {{bins: 5}}}}; on a set of texts, "
                "{centre: {on: docstrings}}."
            )
        if name is None:
            raise RequestError(f"{written}: {kind} takes no number.")
        options = {name: options}
    known = [one for one in (name, "on") if one is not None]
    check_options(options, known, written, kind)
    number = None if name is None else options.get(name)
    if number is not None and (type(number) is not int or number < least):
        raise RequestError(f"{written}: {name} is not a whole number of at least {least}.")
    on = options.get("on")
    if on is not None and not isinstance(on, str | Mapping):
        raise RequestError(
            f"{written}: on takes docstrings, or a file or folder of your own texts (on: "
            "./a.jsonl)."
        )
    return number, on
