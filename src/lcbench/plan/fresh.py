"""The texts that cells are the first to encode, and the operations of encoding them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from lcbench.hub.models import Dimensions
from lcbench.plan.instructions import prompt_characters
from lcbench.plan.rates import Rates
from lcbench.repair.attend import CalibratedAttention
from lcbench.repair.chunks import Chunks
from lcbench.repair.correction import MOST_TEXTS
from lcbench.repair.repair import Repair
from lcbench.results.cell import Cell
from lcbench.tasks.reference import Reference, size_of
from lcbench.tasks.sizes import SPECIAL_TOKENS
from lcbench.tasks.source import Texts, searches

# Operations that take as long as to calibrate a query's attention to a key in one head, which is
# mostly copying. On a CPU MiniLM, with three of six layers calibrated, takes 1.57, 1.50 and 2.59
# times as long with texts of 200, 256 and 500 tokens, and BERT base's layers, half of them
# calibrated, 1.47 and 1.99 times with 512 and 2,048: 1,830, 1,280, 2,280, 2,410 and 1,640. A GPU
# was not measured.
_CALIBRATION = 1700
# Size of BERT's heads, for a model of which it is unknown.
_HEAD_SIZE = 64


@dataclass(frozen=True)
class FreshTexts:
    """Texts of one origin that a cell is the first to encode.

    Attributes:
        key: key in `Rates.texts`.
        texts: number of texts, estimated from mteb's statistics.
        tokens: number of tokens, estimated from characters.
        measured_texts: number of texts corrected by earlier runs, if there are any.
        measured_tokens: number of tokens corrected by earlier runs, if there are any.
        longest: most tokens of a chunk; None: texts are not read in chunks.
        products: products of queries and keys in each layer.
        calibrated: number of layers in which the attention of all tokens is calibrated.
    """

    key: str
    texts: float
    tokens: float
    measured_texts: float
    measured_tokens: float
    longest: int | None = None
    products: int = 1
    calibrated: int = 0

    def operations(
        self, texts: float, tokens: float, model: Dimensions, *, on_gpu: bool = False
    ) -> float:
        """Return the floating-point operations of so many of these texts; see `operations`."""
        if self.longest is not None and tokens > texts * self.longest:
            texts = tokens / self.longest
        return operations(
            texts, tokens, model, self.products, calibrated=self.calibrated, on_gpu=on_gpu
        )


def fresh_texts(
    cell: Cell,
    sizes: Iterable[Texts],
    known: Dimensions,
    encoded: dict[tuple[str, ...], float],
    rates: Rates,
    kind: str,
) -> Iterable[FreshTexts]:
    """Yield the texts that a cell is the first to encode, and add them to `encoded`.

    Args:
        cell: the cell.
        sizes: texts of its task.
        known: dimensions of its model.
        encoded: numbers of texts that other cells encode, by origin and repair.
        rates: measured numbers of texts and tokens.
        kind: type of its task in mteb.
    """
    prompts = cell.protocol.prompts
    every = _encoded(cell, sizes)
    if prompts == "registry":
        every = [_prompted(one, cell, kind) for one in every]
    for one in every:
        repair = cell.repair.encoding.for_role(one.role)
        asked_for = () if prompts == "none" else (cell.task, one.role)
        key = (one.origin, repair.canonical, *asked_for)
        texts = one.unique - encoded.get(key, 0)
        if texts <= 0:
            continue
        encoded[key] = one.unique
        chunks = repair.chunks if repair.reads_chunks else None
        window = repair.window(known.window)
        tokens = texts * _length(one, window, chunks)
        name = f"{cell.model}|{window}|{one.origin}" + (f"|{chunks}" if chunks else "")
        if prompts != "none":
            # Texts are counted with what comes before them.
            name += f"|prompts {prompts}"
        simpler = list(_simpler(repair, known.window))
        if simpler:
            spared = max(
                (
                    most
                    for most, same in simpler
                    if (one.origin, same.canonical, *asked_for) in encoded
                ),
                default=0,
            )
            # Also if that is none: an earlier run may have encoded short texts without the repair.
            name += f"|above {spared}"
            of_texts, of_tokens = _longer(one, spared, None if chunks else window)
            texts, tokens = texts * of_texts, tokens * of_tokens
        then = rates.texts.get(name, (1.0, 1.0, 1.0, 1.0))
        tokens_then, texts_then, measured_texts, measured_tokens = then
        yield FreshTexts(
            key=name,
            texts=texts,
            tokens=tokens,
            measured_texts=texts * measured_texts / texts_then,
            measured_tokens=tokens * measured_tokens / tokens_then,
            longest=None if chunks is None else chunks.size,
            products=1 if repair.extension is None else repair.extension.products,
            calibrated=_calibrated(repair, known),
        )


def _calibrated(repair: Repair, model: Dimensions) -> int:
    """Return the number of a model's layers in which the attention of all tokens is calibrated.

    0 if one token is pooled, since its attention alone is calibrated then. Where the pooling is
    unknown, decoders are taken to pool their last token, and others the mean.
    """
    part, layer = repair.attention, model.layer
    pools_one = layer is not None and layer.causal if model.pools_one is None else model.pools_one
    if not isinstance(part, CalibratedAttention) or pools_one:
        return 0
    first = model.layers // 2 if part.first_layer is None else part.first_layer
    return model.layers - first


def _prompted(texts: Texts, cell: Cell, kind: str) -> Texts:
    """Return texts with the prompts of mteb's registry before them."""
    role = texts.role if searches(kind) else None
    added = prompt_characters(cell.model, cell.task, role)
    return replace(
        texts,
        characters=texts.characters + added * texts.count,
        lengths=tuple(one + added for one in texts.lengths),
    )


def _simpler(repair: Repair, window: int | None) -> Iterator[tuple[int, Repair]]:
    """Yield simpler repairs with the same embeddings of short texts, and how short.

    Args:
        repair: as for texts of one role.
        window: the most tokens that the model reads of a text without a repair.
    """
    if repair.chunks is None:
        yield from repair.simpler(window)
        return
    size = repair.chunks.size or repair.window(window) or 0
    yield size, replace(repair, chunks=None)
    for most, simpler in repair.simpler(window):
        yield min(most, size), simpler


def _longer(texts: Texts, least: int, window: int | None) -> tuple[float, float]:
    """Return the share of texts that have more tokens, and their share of the tokens read.

    If only the average length is known, as if lengths were distributed exponentially.

    Args:
        texts: any texts.
        least: number of tokens.
        window: the most tokens that are read of a text; None: all.
    """
    lengths = _lengths(texts)
    if texts.lengths:
        read = [one if window is None else min(one, window) for one in lengths]
        longer = [one for one, length in zip(read, lengths, strict=True) if length > least]
        return len(longer) / len(read), sum(longer) / sum(read)
    average = max(1.0, *lengths)
    of_texts = math.exp(-least / average)
    truncated = 0.0 if window is None else math.exp(-window / average)
    of_tokens = (least / average + 1) * of_texts - truncated
    return of_texts, min(1.0, max(0.0, of_tokens / (1 - truncated)))


def _encoded(cell: Cell, sizes: Iterable[Texts]) -> Iterable[Texts]:
    """Yield the texts that a cell encodes: those of the task and those of its correction.

    A correction is fitted on a set of texts of its own, or on the task's, which are then the whole
    training split of a classification and all texts of a clustering, not only the samples of them
    that the task reads.
    """
    correction = cell.repair.correction
    if correction is not None and correction.on is not None:
        yield _reference(correction.on)
    for one in sizes:
        if correction is None or correction.on is not None or one.drawn_from is None:
            yield one
            continue
        count = max(one.unique, min(MOST_TEXTS, one.drawn_from))
        yield replace(
            one,
            count=count,
            unique=count,
            characters=round(one.characters * count / max(1, one.count)),
        )


@lru_cache(maxsize=8)
def _reference(on: Reference) -> Texts:
    return size_of(on, MOST_TEXTS)


def _length(texts: Texts, window: int | None, chunks: Chunks | None) -> float:
    """Return the tokens that go through a model for a text, on average."""
    if not texts.count:
        return 0.0
    lengths = _lengths(texts)
    if chunks is not None:
        read = [chunks.tokens_of(one, SPECIAL_TOKENS) for one in lengths]
    else:
        read = [one if window is None else min(one, window) for one in lengths]
    return sum(read) / len(read)


def _lengths(texts: Texts) -> list[float]:
    """Return the tokens of texts, of equally many each; of an average one if no more is known."""
    lengths = texts.lengths or (texts.characters / max(1, texts.count),)
    return [one / texts.characters_per_token + SPECIAL_TOKENS for one in lengths]


def operations(
    texts: float,
    tokens: float,
    model: Dimensions,
    products: int = 1,
    *,
    calibrated: int = 0,
    on_gpu: bool = False,
) -> float:
    """Return the floating-point operations of a forward pass over texts of equal length.

    A layer multiplies each token with its weights, at two operations each, and attention takes 2 ·
    length · width of the queries per token for QKᵀ and as many for its product with V, half of that
    under a causal mask. Layers with a window compute it alone on a GPU (`tempscale.unpadded`), and
    all products with a mask on a CPU. Layers of unknown shape are counted like BERT's: 12 · hidden²
    weights (four matrices of attention, and a feed-forward part four times as wide).

    Args:
        texts: number of texts.
        tokens: number of their tokens.
        model: its dimensions.
        products: products of queries and keys in each layer; SelfExtend has three.
        calibrated: number of layers in which the attention of all tokens is calibrated.
        on_gpu: whether a GPU computes them.
    """
    if not texts:
        return 0.0
    layer, length = model.layer, tokens / texts
    weights, attended = 12 * model.hidden**2, model.hidden * length
    heads = model.hidden / _HEAD_SIZE
    if layer is not None:
        weights, attended = layer.weights, layer.attended * layer.reach(length, windowed=on_gpu)
        heads = layer.heads
    of_token = model.layers * (2 * weights + 2 * (products + 1) * attended)
    return tokens * (of_token + calibrated * _CALIBRATION * heads * length)
