"""Measure what happens inside a model by layer, head and length, on the same texts at each length.

`choose` takes texts that are long enough; `look.measure_inside` cuts each to every length and lets
them through the model one at a time. Intervals are of a bootstrap over texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.crowding import FEWEST
from lcbench.measures.estimates import RESAMPLES, Estimate, resampled, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.measures.collapse import CountTokens

InsideMeasure = Literal["attention", "signal"]

INSIDE: tuple[InsideMeasure, ...] = ("attention", "signal")
"""What can be measured inside a model."""

INSIDE_VERSION = 3
"""Raised by hand whenever the same texts would give other numbers."""

LENGTHS = (64, 128, 256, 512)
"""Tokens of each text by default, special ones included, as far as the window reaches."""

OF_HEADS = ("sigma_a", "beyond_mask", "sigma_s", "sigma_s_in_rows", "entropy", "first")
"""What is measured of each head, by the fields of `HeadMeasures`."""

PAIRED = (
    ("attention", "sigma_a"),
    ("attention", "entropy"),
    ("attention", "first"),
    ("block", "block"),
)
"""Part and name of the quantities in which a repair is compared with the baseline."""

# Documents among which long ones are looked for, for each that is asked for.
_CANDIDATES = 40


@dataclass(frozen=True)
class InsideOptions:
    """What is measured inside a model; each field is part of what identifies a measurement.

    Attributes:
        measures: of `INSIDE`, in that order.
        texts: number of texts, each cut to every length.
        lengths: in tokens, special ones included, ascending; None: those of `LENGTHS` that the
            window holds and so many texts have, or the window if it is shorter.
        resamples: bootstrap samples.
        seed: of which texts are drawn, and of the bootstrap.
    """

    measures: tuple[InsideMeasure, ...] = INSIDE
    texts: int = 50
    lengths: tuple[int, ...] | None = None
    resamples: int = RESAMPLES
    seed: int = 0

    def digest(self, documents: Sequence[str]) -> str:
        """Return 40 hexadecimal digits over texts and options: what a measurement is of."""
        content = ["inside", INSIDE_VERSION, asdict(self), list(documents)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Chosen:
    """The texts of a measurement.

    Attributes:
        texts: each of at least the largest length.
        lengths: that each is cut to, in tokens with special ones, ascending.
        note: which lengths are left out; empty: none.
    """

    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class ByTokens:
    """A quantity of one layer at each length.

    Attributes:
        layer: number of the layer, from 0.
        part: `attention` (means of the heads), `block` (the whole layer), `stream` (a step of it),
            `branch` (what is added to the stream) or `bound` (attention alone, and its bounds).
        name: of the quantity, or of the step.
        values: one for each length; of `attention` plain numbers, otherwise log ratios.
        change: the last minus the first.
        of_texts: values of each text at each length, shape (lengths, texts), of quantities of
            `PAIRED`; otherwise empty.
    """

    layer: int
    part: str
    name: str
    values: tuple[Estimate, ...]
    change: Estimate
    of_texts: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Head:
    """The attention of one head: means over texts, one for each length.

    Attributes:
        layer: number of the layer, from 0.
        head: number of the head, from 0.
        values: by the names of `OF_HEADS`.
    """

    layer: int
    head: int
    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Inside:
    """What is measured inside a model under one temperature policy.

    Attributes:
        texts: number of texts.
        lengths: in tokens, special ones included.
        layers: quantities of each layer.
        heads: of each layer; none without `attention`.
        taus: temperature of each layer, at the longest text.
        notes: what is left out, and why.
    """

    texts: int
    lengths: tuple[int, ...]
    layers: tuple[ByTokens, ...]
    heads: tuple[Head, ...]
    taus: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_masked(self) -> bool:
        """Whether tokens of some layer do not attend to all, as under a causal mask."""
        whole, beyond = self.of("attention", "sigma_a"), self.of("attention", "beyond_mask")
        return any(
            one.value - rest.value > 1e-6
            for layer, by in beyond.items()
            for one, rest in zip(whole[layer].values, by.values, strict=True)
        )

    def of(self, part: str, name: str) -> dict[int, ByTokens]:
        """Return a quantity by layer."""
        return {one.layer: one for one in self.layers if (one.part, one.name) == (part, name)}


def shares_of(texts: int, options: InsideOptions) -> NDArray[np.float64]:
    """Return the weight of each text in the data and each bootstrap sample.

    Returns:
        Shape (1 + samples, texts); each row sums to 1.
    """
    drawn = resampled(texts, options.resamples, options.seed)
    shares: NDArray[np.float64] = drawn / drawn.sum(axis=1, keepdims=True)
    return shares


def by_tokens(
    layer: int,
    part: str,
    name: str,
    of_texts: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> ByTokens:
    """Return a quantity of one layer with intervals over texts.

    Args:
        layer: number of the layer.
        part: see `ByTokens`.
        name: see `ByTokens`.
        of_texts: the quantity of each text at each length, shape (lengths, texts).
        shares: weights of texts in bootstrap samples (`shares_of`).
    """
    texts = of_texts.shape[1]
    # Shape (samples, lengths).
    means = shares @ of_texts.T
    kept = of_texts if (part, name) in PAIRED else of_texts[:0]
    return ByTokens(
        layer,
        part,
        name,
        tuple(spread(means[:, at], texts) for at in range(means.shape[1])),
        spread(means[:, -1] - means[:, 0], texts),
        tuple(tuple(float(f"{value:.7g}") for value in row) for row in kept),
    )


def changes(repaired: Inside, baseline: Inside, options: InsideOptions) -> tuple[ByTokens, ...]:
    """Return how a repair changes each quantity of `PAIRED`, by layer and length.

    Each is the mean difference from the baseline on the same texts, with the interval of that
    difference.

    Args:
        repaired: measurement under a repair.
        baseline: baseline's measurement of the same texts.
        options: options of both.

    Raises:
        RequestError: the texts or lengths of the two differ.
    """
    if (repaired.texts, repaired.lengths) != (baseline.texts, baseline.lengths):
        raise RequestError(
            f"{repaired.texts} texts of {list(repaired.lengths)} tokens cannot be compared with "
            f"{baseline.texts} of {list(baseline.lengths)}"
        )
    shares = shares_of(repaired.texts, options)
    found = []
    for part, name in PAIRED:
        before = baseline.of(part, name)
        for layer, after in repaired.of(part, name).items():
            if layer in before:
                difference = np.subtract(after.of_texts, before[layer].of_texts)
                found.append(replace(by_tokens(layer, part, name, difference, shares), of_texts=()))
    return tuple(found)


def choose(
    documents: Sequence[str],
    count_tokens: CountTokens,
    window: int,
    room: int,
    options: InsideOptions = InsideOptions(),
) -> Chosen:
    """Choose texts that have at least the tokens of the largest length, the same ones every time.

    Args:
        documents: texts.
        count_tokens: of the model, without special tokens.
        window: most tokens that the model reads of a text.
        room: the same without special tokens and prompt.
        options: how many texts, and which lengths.

    Raises:
        RequestError: a length is beyond the window, or fewer than 30 texts have so many tokens.
    """
    wanted = options.lengths or tuple(one for one in LENGTHS if one <= window) or (window,)
    if wanted[-1] > window or wanted[0] <= window - room:
        raise RequestError(
            f"traced_lengths={list(wanted)}: lengths are from {window - room + 1} tokens, one more "
            f"than special tokens and prompt, to the window of {window}"
        )
    documents = list(dict.fromkeys(documents))
    order = np.random.default_rng(options.seed).permutation(len(documents))
    drawn = [documents[at] for at in order[: _CANDIDATES * options.texts]]
    sizes = np.asarray(count_tokens(drawn), dtype=np.int64) + window - room
    enough = [one for one in wanted if (sizes >= one).sum() >= FEWEST]
    if not enough or (options.lengths is not None and len(enough) < len(wanted)):
        short = wanted[len(enough)]
        raise RequestError(
            f"{int((sizes >= short).sum())} of {len(drawn)} texts have {short} tokens, and at "
            f"least {FEWEST} are needed: take longer or more texts, or shorter traced_lengths"
        )
    kept = np.flatnonzero(sizes >= enough[-1])[: options.texts]
    left_out = ", ".join(map(str, wanted[len(enough) :]))
    note = f"too few texts have {left_out} tokens, which are left out" if left_out else ""
    return Chosen(tuple(drawn[at] for at in kept), tuple(enough), note)
