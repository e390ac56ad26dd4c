"""Tell whether embeddings of long texts crowd together more than averaging alone explains.

Means of k independent sentence embeddings are closer to each other the larger k is, so a rise of
cosines with length alone does not prove length collapse. The mean cosine of texts of k sentences is
therefore compared with that of the means of their sentences' embeddings, under three conditions:
the first sentence repeated, the sentences that follow it, and random sentences. Means are weighted
as the model weights sentences, if it does not pool by the mean (`weighting`); the verdict then
allows for what the weights do not explain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.averages import WeightedDraws, averaged, mean_cosines, weighted_draws
from lcbench.measures.estimates import RESAMPLES, Estimate, resampled, spread
from lcbench.measures.geometry import unit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Draws = NDArray[np.float64]

Condition = Literal["repeated", "sequential", "random"]
"""What follows the first sentence of a text: itself, its successors, or sentences at random."""

CONDITIONS: tuple[Condition, ...] = ("repeated", "sequential", "random")

Answer = Literal["yes", "no", "cannot be told"]

MARGIN = 0.02
"""Cosine by which texts must crowd more than averages to be called collapsed: the half-width of the
95 % interval of 200 texts is .01 to .02, so a smaller excess would not show."""

FEWEST = 30
"""Texts of which a mean cosine is worth an interval."""


class Embedded(NamedTuple):
    """Embeddings of the texts that are compared, as `crowding` takes them.

    Attributes:
        single: of the first sentences alone, shape (texts, dimensions).
        joined: of the texts, by condition and number of sentences.
        pooled: means of their sentences' embeddings, by condition and number of sentences.
        sentences: these embeddings themselves, shape (texts, sentences, dimensions), if the model
            does not pool by the mean; None: all sentences count alike.
    """

    single: ArrayLike
    joined: Mapping[Condition, Mapping[int, ArrayLike]]
    pooled: Mapping[Condition, Mapping[int, ArrayLike]]
    sentences: Mapping[Condition, Mapping[int, ArrayLike]] | None = None


@dataclass(frozen=True)
class Change:
    """How much a repair changes each number of a verdict, on the same texts.

    Each is the repaired model's less the baseline's, with the interval of the difference; see
    `Verdict` for what they mean.
    """

    single: Estimate
    joined: Estimate
    rise: Estimate
    averaging: Estimate
    content: Estimate
    length: Estimate
    repeated: Estimate
    random: Estimate


@dataclass(frozen=True)
class Weighted:
    """How a model that does not pool by the mean weights sentences, and what that leaves open.

    Attributes:
        effective: number of sentences that, counting alike, average as much (`weighting`).
        explained: share of the variance of the texts' embeddings that the weights explain.
        lowest: `Verdict.length`, were averaging the most that the weights leave possible.
        highest: the same, were it the least; equal to `lowest` if the weights explain everything.
    """

    effective: float
    explained: float
    lowest: Estimate
    highest: Estimate


@dataclass(frozen=True)
class Verdict:
    """Whether a model collapses, and the components of the rise of cosines with length.

    For texts of consecutive sentences, `rise` = `averaging` + `content` + `length`.

    Attributes:
        collapses: "yes": `length` is significantly above 0 and at least `MARGIN`; "no": it is
            smaller than `MARGIN` with 97.5 % confidence; else "cannot be told". Of a model that
            does not pool by the mean "yes" is said of `weighted.lowest`, and "no" of `.highest`.
        sentences: number of sentences, k, of the longest texts.
        single: mean cosine of single sentences.
        joined: mean cosine of texts of k consecutive sentences.
        rise: `joined` − `single`.
        averaging: rise expected of means of k independent sentences (`averaged_cosine`).
        content: change of that rise because the sentences of a text are similar.
        length: rise beyond the means of the texts' own sentences.
        repeated: rise if one sentence is repeated, which averaging does not cause.
        random: rise beyond averaging if the sentences are drawn at random.
        weighted: how the model weights sentences, by which `averaging` and `length` are then meant;
            None: it pools by the mean, and all k sentences count alike.
    """

    collapses: Answer
    sentences: int
    single: Estimate
    joined: Estimate
    rise: Estimate
    averaging: Estimate
    content: Estimate
    length: Estimate
    repeated: Estimate
    random: Estimate
    weighted: Weighted | None = None

    def __str__(self) -> str:
        """Return the verdict in three sentences, or four of a model with weights."""
        verb = "rises" if self.rise.value >= 0 else "falls"
        weighted = allowed = ""
        if (found := self.weighted) is not None:
            weighted = (
                ", weighted as the model weights them (it does not pool by the mean; as much as "
                f"{found.effective:.1f} that count alike),"
            )
            allowed = (
                f" The weights explain {100 * found.explained:.0f} % of the embeddings' variance; "
                f"allowing for the rest, length itself adds {_signed(found.lowest)} at least and "
                f"{_signed(found.highest)} at most."
            )
        return (
            f"Collapses: {self.collapses}. From 1 to {self.sentences} sentences the mean cosine "
            f"{verb} from {self.single.value:.2f} to {self.joined.value:.2f}: averaging of "
            f"independent sentences{weighted} explains {self.averaging.value:+.2f}, that sentences "
            f"of a text are alike {self.content.value:+.2f}, length itself {_signed(self.length)}. "
            f"Beyond averaging, a repeated sentence adds {_signed(self.repeated)}, sentences at "
            f"random {_signed(self.random)}.{allowed}"
        )


@dataclass(frozen=True)
class Crowding:
    """Mean pairwise cosines of texts by number of sentences, compared with averaging alone.

    Attributes:
        counts: numbers of sentences, k, from 1 up.
        texts: number of texts at each k.
        cosines: mean cosine by condition, one entry per k.
        averaging: mean cosine of the means of the same texts' sentence embeddings, by condition,
            weighted as `Verdict.weighted` says; for a repeated sentence, that of the sentence
            alone, whatever the weights.
        independent: mean cosine of means of k independent sentences, one entry per k.
        excess: `cosines` − `averaging`.
        verdict: at the largest k.
    """

    counts: tuple[int, ...]
    texts: int
    cosines: Mapping[Condition, tuple[Estimate, ...]]
    averaging: Mapping[Condition, tuple[Estimate, ...]]
    independent: tuple[Estimate, ...]
    excess: Mapping[Condition, tuple[Estimate, ...]]
    verdict: Verdict


@dataclass(frozen=True)
class LengthBin:
    """Texts of similar length.

    Attributes:
        shortest: length of its shortest text, in the unit of the lengths.
        longest: length of its longest text.
        mean_length: mean of the lengths.
        texts: number of texts, equal in all bins but for one text.
        cosine: mean pairwise cosine.
        averaging: mean cosine expected from averaging alone, given how much longer the texts are
            than those of the first bin; in the first bin its own mean cosine. The most that
            averaging gives: less, if parts do not count alike (`weighting`).
        excess: `cosine` − `averaging`.
    """

    shortest: float
    longest: float
    mean_length: float
    texts: int
    cosine: Estimate
    averaging: Estimate
    excess: Estimate


@dataclass(frozen=True)
class CosineByLength:
    """Mean pairwise cosines of texts in bins by length.

    Attributes:
        bins: from short to long.
        change: mean cosine of the longest bin minus that of the shortest.
        beyond_averaging: whether the longest bin is above averaging, as in `Verdict.collapses`.
            Averaging assumes independent parts, while the parts of a real text are similar and
            crowd less. So "yes" is strong evidence, but "no" does not exclude a collapse that this
            similarity hides; `crowding` separates the two.
    """

    bins: tuple[LengthBin, ...]
    change: Estimate
    beyond_averaging: Answer


def averaged_cosine(cosine: float, count: float) -> float:
    """Return the cosine of two means of k vectors with this mean cosine: kρ / (1 + (k − 1)ρ).

    This is the Spearman-Brown formula for the effect of averaging independent sentences.

    Args:
        cosine: ρ, the mean cosine of single vectors.
        count: k, at least 1; need not be whole.
    """
    return float(averaged(np.asarray(cosine, dtype=np.float64), count))


def crowding(
    single: ArrayLike,
    joined: Mapping[Condition, Mapping[int, ArrayLike]],
    pooled: Mapping[Condition, Mapping[int, ArrayLike]],
    resamples: int = RESAMPLES,
    seed: int = 0,
    sentences: Mapping[Condition, Mapping[int, ArrayLike]] | None = None,
) -> Crowding:
    """Measure how texts crowd together as sentences are joined, and return the verdict.

    Args:
        single: embeddings of the first sentences alone, shape (texts, dimensions).
        joined: embeddings of texts of k sentences, by condition and k > 1; row i begins with the
            sentence of row i of `single`. All conditions need the same k, with equal numbers of
            tokens at each k; repeated and random texts may be there for the first rows only.
        pooled: for sequential and random texts, the means of the unit embeddings of their
            sentences, each embedded alone.
        resamples: number of bootstrap samples over texts.
        seed: seed of the bootstrap.
        sentences: for sequential and random texts, the embeddings of their sentences, shape (texts,
            k, dimensions), by which the model's weights are estimated, in each sample anew; None:
            it pools by the mean, and all sentences count alike.

    Raises:
        RequestError: a condition or a k is missing, shapes differ, fewer than 30 texts, or values
            that are not finite.
    """
    drawn = _drawn(Embedded(single, joined, pooled, sentences), resamples, seed)
    texts = drawn.texts
    parts = {name: spread(values, drawn.texts_of(name)) for name, values in drawn.parts.items()}

    def estimates(values: Mapping[Condition, list[Draws]]) -> dict[Condition, tuple[Estimate, ...]]:
        return {name: _estimates(one, drawn.texts_of(name)) for name, one in values.items()}

    return Crowding(
        counts=drawn.counts,
        texts=texts,
        cosines=estimates(drawn.cosines),
        averaging=estimates(drawn.averaging),
        independent=_estimates(drawn.independent, texts),
        excess=estimates(drawn.excess),
        verdict=_verdict(drawn, parts),
    )


def _verdict(drawn: _Drawn, parts: Mapping[str, Estimate]) -> Verdict:
    count = drawn.counts[-1]
    if drawn.weighted is None:
        return Verdict(answer(parts["length"]), count, weighted=None, **parts)
    joined = drawn.cosines["sequential"][-1]
    # The most averaging leaves the least to length.
    lowest, highest = (
        spread(joined - averages, drawn.texts)
        for averages in (drawn.weighted.most, drawn.weighted.least)
    )
    weighted = Weighted(
        float(drawn.weighted.effective[0]), float(drawn.weighted.explained[0]), lowest, highest
    )
    return Verdict(answer(lowest, highest), count, weighted=weighted, **parts)


def change(
    repaired: Embedded, baseline: Embedded, resamples: int = RESAMPLES, seed: int = 0
) -> Change:
    """Return how much a repair changes what the verdict consists of.

    Args:
        repaired: embeddings of the texts by the repaired model.
        baseline: of the same texts by the model as it is.
        resamples: of the bootstrap over texts, which draws the same ones for both.
        seed: of its draws.

    Raises:
        RequestError: as `crowding`; or the two have other numbers of texts or of sentences.
    """
    ours, theirs = _drawn(repaired, resamples, seed), _drawn(baseline, resamples, seed)
    if (ours.rows, ours.counts) != (theirs.rows, theirs.counts):
        raise RequestError(
            f"{ours.texts} texts of {ours.counts} sentences cannot be compared with "
            f"{theirs.texts} texts of {theirs.counts} sentences"
        )
    return Change(
        **{
            name: spread(values - theirs.parts[name], ours.texts_of(name))
            for name, values in ours.parts.items()
        }
    )


@dataclass(frozen=True)
class _Drawn:
    """Mean cosines of the data and of each bootstrap sample, by condition and count.

    Attributes:
        rows: number of texts, by condition.
        counts: numbers of sentences, from 1.
        cosines: mean cosines of texts, arrays of shape (1 + samples,).
        averaging: the same of means of their sentences' embeddings.
        independent: the same if sentences were independent.
        weighted: of sequential texts of the most sentences; None: all sentences count alike.
    """

    rows: Mapping[str, int]
    counts: tuple[int, ...]
    cosines: Mapping[Condition, list[Draws]]
    averaging: Mapping[Condition, list[Draws]]
    independent: list[Draws]
    weighted: WeightedDraws | None = None

    @property
    def texts(self) -> int:
        return self.rows["sequential"]

    def texts_of(self, part: str) -> int:
        """Return the number of texts of a condition, or of a part of the verdict."""
        return self.rows.get(part, self.texts)

    @property
    def excess(self) -> dict[Condition, list[Draws]]:
        return {
            name: [
                value - by
                for value, by in zip(self.cosines[name], self.averaging[name], strict=True)
            ]
            for name in CONDITIONS
        }

    @property
    def parts(self) -> dict[str, Draws]:
        """What a verdict consists of, by the names of its fields."""
        alone, independent = self.cosines["sequential"][0], self.independent[-1]
        joined = self.cosines["sequential"][-1]
        excess = self.excess
        return {
            "single": alone,
            "joined": joined,
            "rise": joined - alone,
            "averaging": independent - alone,
            "content": self.averaging["sequential"][-1] - independent,
            "length": excess["sequential"][-1],
            "repeated": excess["repeated"][-1],
            "random": excess["random"][-1],
        }


def _drawn(embedded: Embedded, resamples: int, seed: int) -> _Drawn:
    first = unit(embedded.single, least=FEWEST)
    joined = embedded.joined
    counts = tuple(sorted(joined.get(CONDITIONS[0], ())))
    if not counts or counts[0] < 2:
        raise RequestError("joined['repeated'] needs texts of 2 sentences or more")
    whole = resampled(len(first), resamples, seed)
    cosines: dict[Condition, list[Draws]] = {}
    averaging: dict[Condition, list[Draws]] = {}
    texts: dict[str, int] = {}
    weighted: list[WeightedDraws] = []
    for name in CONDITIONS:
        least = len(first) if name == "sequential" else FEWEST
        rows = _matching("joined", joined, name, counts, first, least)
        # Fewer texts are compared with their own first sentences alone.
        texts[name] = len(rows[0])
        drawn = whole[:, : texts[name]]
        alone = mean_cosines(first[: texts[name]], drawn)
        cosines[name] = [alone, *(mean_cosines(one, drawn) for one in rows)]
        averaging[name] = [alone] * len(cosines[name])
        if name != "repeated":
            means = _matching("pooled", embedded.pooled, name, counts, first, texts[name])
            averages = [mean_cosines(one[: texts[name]], drawn) for one in means]
            if embedded.sentences is not None:
                found = [
                    weighted_draws(
                        _sentences(embedded.sentences, name, count, one), one, drawn, equal
                    )
                    for count, one, equal in zip(counts, rows, averages, strict=True)
                ]
                averages = [one.cosine for one in found]
                weighted = found if name == "sequential" else weighted
            averaging[name] = [alone, *averages]
    effective = [one.effective for one in weighted] or counts
    alone = cosines["sequential"][0]
    independent = [alone, *(averaged(alone, count) for count in effective)]
    return _Drawn(
        texts,
        (1, *counts),
        cosines,
        averaging,
        independent,
        weighted[-1] if weighted else None,
    )


def _sentences(
    given: Mapping[Condition, Mapping[int, ArrayLike]],
    name: Condition,
    count: int,
    joined: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the unit embeddings of texts' sentences, shape (texts, sentences, dimensions)."""
    parts = np.asarray(given.get(name, {}).get(count, ()))
    texts, dimensions = joined.shape
    if parts.shape[1:] != (count, dimensions) or len(parts) < texts:
        raise RequestError(
            f"sentences[{name!r}][{count}] has the shape {parts.shape}: expected {texts} texts of "
            f"{count} sentences, shape {(texts, count, dimensions)}"
        )
    return unit(parts[:texts].reshape(-1, dimensions)).reshape(texts, count, dimensions)


def cosine_by_length(
    embeddings: ArrayLike,
    lengths: ArrayLike,
    bins: int = 5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CosineByLength:
    """Return mean pairwise cosines of texts by length, compared with averaging alone.

    Only the lengths of the texts are needed, so it works for models behind an API.

    Args:
        embeddings: shape (texts, dimensions).
        lengths: lengths of the texts in any unit, shape (texts,).
        bins: number of bins, with equal numbers of texts.
        resamples: number of bootstrap samples over texts.
        seed: seed of the bootstrap.

    Raises:
        RequestError: rows do not match, lengths are not above 0 or all equal, or a bin would have
            fewer than 30 texts.
    """
    rows = unit(embeddings)
    sizes = np.asarray(lengths, dtype=np.float64)
    if sizes.shape != (len(rows),):
        raise RequestError(
            f"lengths has the shape {sizes.shape}, and embeddings {len(rows)} rows: one length a "
            "row is needed"
        )
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise RequestError("lengths must be above 0 and finite: remove empty texts")
    if sizes.min() == sizes.max():
        raise RequestError(f"all texts are of one length, {sizes[0]:g}: nothing can be compared")
    if bins < 2 or len(rows) < bins * FEWEST:
        raise RequestError(
            f"{len(rows)} texts in {bins} bins: at least 2 bins of {FEWEST} texts are needed; "
            "take fewer bins (bins=) or more texts"
        )
    order = np.lexsort((np.arange(len(rows)), sizes))
    drawn = resampled(len(rows), resamples, seed)
    parts = np.array_split(order, bins)
    means = [float(sizes[part].mean()) for part in parts]
    if means[0] == means[-1]:
        raise RequestError("the shortest and the longest texts are of one length: take other texts")
    cosines = [mean_cosines(rows[part], drawn[:, part]) for part in parts]
    found = []
    for part, mean, cosine in zip(parts, means, cosines, strict=True):
        averaging = averaged(cosines[0], mean / means[0])
        texts = len(part)
        found.append(
            LengthBin(
                shortest=float(sizes[part[0]]),
                longest=float(sizes[part[-1]]),
                mean_length=mean,
                texts=texts,
                cosine=spread(cosine, texts),
                averaging=spread(averaging, texts),
                excess=spread(cosine - averaging, texts),
            )
        )
    return CosineByLength(
        bins=tuple(found),
        change=spread(cosines[-1] - cosines[0], min(len(part) for part in parts)),
        beyond_averaging=answer(found[-1].excess),
    )


def answer(excess: Estimate, highest: Estimate | None = None) -> Answer:
    """Return whether an excess over averaging means a collapse: yes, no or unclear.

    Args:
        excess: the excess, or the lowest that it may be.
        highest: the highest that it may be; None: it is known but for its interval.
    """
    if excess.low > 0 and excess.value >= MARGIN:
        return "yes"
    return "no" if (highest or excess).high < MARGIN else "cannot be told"


def _matching(
    argument: str,
    given: Mapping[Condition, Mapping[int, ArrayLike]],
    name: Condition,
    counts: Sequence[int],
    first: NDArray[np.float64],
    least: int,
) -> list[NDArray[np.float64]]:
    """Return the unit embeddings of a condition, one matrix per number of sentences.

    All have the same number of rows, which is `least` or more.
    """
    by_count = given.get(name, {})
    if tuple(sorted(by_count)) != tuple(counts):
        raise RequestError(
            f"{argument}[{name!r}] has texts of {sorted(by_count)} sentences, and "
            f"joined['repeated'] of {list(counts)}: all need the same"
        )
    matrices = [unit(by_count[count], least=FEWEST) for count in counts]
    rows = min(max(len(matrices[0]), least), len(first))
    for count, matrix in zip(counts, matrices, strict=True):
        if matrix.shape != (rows, first.shape[1]):
            raise RequestError(
                f"{argument}[{name!r}][{count}] has the shape {matrix.shape}, and single "
                f"{first.shape}: row i of each must begin with the same sentence"
            )
    return matrices


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _estimates(values: Sequence[Draws], texts: int) -> tuple[Estimate, ...]:
    return tuple(spread(value, texts) for value in values)
