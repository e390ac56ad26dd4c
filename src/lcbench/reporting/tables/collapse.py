"""Tables of measurements of collapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lcbench.measures import every_measure
from lcbench.measures.crowding import CONDITIONS
from lcbench.reporting.table import Entry, Table, name
from lcbench.reporting.tables.measurements import (
    estimated,
    heading_of,
    length_range,
    measured,
    ordered,
    repair_of,
    sections,
    signed,
)
from lcbench.reporting.text import MISSING_VALUE

if TYPE_CHECKING:
    from lcbench.measures.causes import Cause
    from lcbench.measures.files import Measurement

# What the columns of a verdict are called, by the fields of `Verdict` and `Change`.
_PARTS = {
    "single": "One\nsentence",
    "joined": "All\nsentences",
    "rise": "Rise",
    "averaging": "Averaging",
    "content": "Content",
    "length": "Length\nitself",
    "repeated": "Repeated\nsentence",
    "random": "Random\nsentences",
}

# Those that are differences, and have a sign; and those whose interval is shown (files have all).
_CHANGES = frozenset(_PARTS) - {"single", "joined"}
_WITH_INTERVAL = frozenset({"rise", "length"})

_ABOUT_VERDICT = (
    "Mean cosine of pairs of different texts. Rise = averaging + content + length itself. "
    "Averaging: what the mean of as many independent sentences would gain, kρ / (1 + (k − 1)ρ). "
    "Content: what it changes that the sentences of a text are alike. Length itself: how much "
    "closer the texts lie than the means of their own sentences. Repeated, random: the same "
    "beyond averaging, of one sentence repeated and of sentences at random, of as many tokens. "
    "With 95 % intervals from a bootstrap over texts. A model collapses if length itself adds at "
    "least 0.02, significantly."
)
_WEIGHTED = (
    "A model that does not pool by the mean does not average all sentences alike. Its averages are "
    "therefore weighted means, by the weights that its own embeddings have of each sentence, and "
    "k is the number of sentences that average as much counting alike, 1 / Σ w². The weights "
    "explain a share of the texts' variance; for the rest of it averaging may be less or more, so "
    "that it collapses only if length itself is above 0.02 at its lowest, and does not only if it "
    "is below at its highest: "
)
_ABOUT_WEIGHTS = (
    "The embedding of a text as a weighted mean of those of its sentences, each embedded alone: "
    "weights by place, at least 0, fitted to all texts after their mean is taken off. Effective "
    "sentences: 1 / Σ w², as many as there are if all count alike, 1 if one alone counts. "
    "Explained: share of the texts' variance; where it is low the weights say little."
)
_ABOUT_LENGTHS = (
    "Whole texts in bins of equal numbers by length in tokens, as far as the model reads them. "
    "Averaging: what it gives texts so much longer than those of the first bin, if their parts "
    "were independent and counted alike; it gives less where parts are alike, as in a real text, "
    "or count unequally, as where a model does not pool by the mean. N10: mean number of texts "
    "among whose 10 nearest neighbours a text of this bin is; 10 where no length is preferred."
)
_ABOUT_SHIFT = (
    "Local: mean cosine distance of neighbouring sentences; Dispersion: of all pairs; Shift: their "
    "product (arXiv:2603.21437, whose text is not public in full, so that Local as a sum is given "
    "too). Dilution: mean of 1 − cosine of a text and its sentences. Overlap: share of texts that "
    "still have the nearest neighbour of their first sentence. Agreement: cosine of the text with "
    "the mean of its sentences; 1 where the model only averages."
)
_ABOUT_CAUSES = (
    "Partial rank correlations over all texts of sequential and random sentences: of shift with "
    "the outcome among texts of equally many sentences, and of the number of sentences with the "
    "outcome among texts of equal shift. With 95 % intervals from a bootstrap over texts."
)
_ABOUT_RETRIEVAL = (
    "Documents: those that are searched, one relevant to each query and others. Short beats long: "
    "share of pairs of a query and a document of a shorter bin than its relevant one in which that "
    "document scores higher; long beats short: of a longer bin (bins as in the table below). Rank "
    "correlations with length in tokens, as far as the model reads documents: of the relevant "
    "document's cosine with its query, of its rank, of N10 (how often a document is among the 10 "
    "best that are not relevant), and of a document's mean cosine with the queries that it is not "
    "relevant to. With 95 % intervals from a bootstrap over documents."
)
_ABOUT_SEARCH = (
    "By length of the relevant document. Alignment: mean squared distance of query and relevant "
    "document, 2 − 2 cos. Best chunk − whole: how much higher than the whole document its best "
    "chunk scores (evidence dilution, after arXiv:2606.18781); the best of several chunks is high "
    "by chance, too, so the same is given of equally long documents that are relevant to other "
    "queries. Chunks are of what the model reads, so that nothing of it is truncation. Beaten by "
    "bin: share of documents of that bin, from short to long, that score above the relevant one."
)
_ABOUT_MODERATION = (
    "Slopes, in standard deviations of ranks, of how early the relevant document is found on how "
    "close it lies to all others (mean cosine), at a shift of its chunks one standard deviation "
    "below and above the mean, given its length. The claim of arXiv:2603.21437 needs a slope below "
    "0 at strong shift, none below 0 at weak shift, and an interaction below 0. One model on one "
    "corpus has one anisotropy, so that documents are compared instead of spaces."
)


def tables_of(measurements: Sequence[Measurement]) -> tuple[Table, ...]:
    """Return all tables of measurements that have any row."""
    rows = ordered(measurements)
    makers = (
        _verdicts,
        _changes,
        _sentences,
        _weights,
        _lengths,
        _space,
        _shift,
        _causes,
        _retrieval,
        _search,
        _moderation,
    )
    tables = [make(rows) for make in makers]
    return tuple(table for table in tables if table.rows)


def _verdicts(measurements: Sequence[Measurement]) -> Table:
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(verdict.collapses),
                name(str(verdict.sentences)),
                *(
                    estimated(getattr(verdict, part), part in _CHANGES, part in _WITH_INTERVAL)
                    for part in _PARTS
                ),
            ),
        )
        for one in measurements
        if one.collapse.crowding is not None
        for verdict in (one.collapse.crowding.verdict,)
    ]
    header = ("Repair", "Collapses", "Sentences", *_PARTS.values())
    weighted = [
        f"{heading_of(one)}, {repair_of(one)}: k {found.effective:.1f}, explained "
        f"{100 * found.explained:.0f} %, length itself at its lowest {signed(found.lowest)}, at "
        f"its highest {signed(found.highest)}"
        for one in measurements
        if one.collapse.crowding is not None
        and (found := one.collapse.crowding.verdict.weighted) is not None
    ]
    return Table(
        "collapse",
        "Does the model collapse, and is it length?",
        header,
        2,
        sections(rows),
        notes=(f"{_WEIGHTED}{'; '.join(weighted)}.",) if weighted else (),
        footnotes=(_ABOUT_VERDICT,),
    )


def _changes(measurements: Sequence[Measurement]) -> Table:
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                *(
                    estimated(getattr(change, part), True, part in _WITH_INTERVAL)
                    for part in _PARTS
                ),
            ),
        )
        for one in measurements
        if (change := one.collapse.change) is not None
    ]
    return Table(
        "changes",
        "What the repair changes, against the baseline on the same texts",
        ("Repair", *_PARTS.values()),
        1,
        sections(rows),
    )


def _sentences(measurements: Sequence[Measurement]) -> Table:
    rows = []
    for one in measurements:
        crowding = one.collapse.crowding
        if crowding is None:
            continue
        for condition in CONDITIONS:
            for place, count in enumerate(crowding.counts):
                tokens = one.collapse.tokens.get(count)
                rows.append(
                    (
                        one,
                        (
                            name(repair_of(one)),
                            name(condition),
                            name(str(count)),
                            Entry(MISSING_VALUE if tokens is None else f"{tokens:.0f}", tokens),
                            estimated(crowding.cosines[condition][place]),
                            estimated(crowding.averaging[condition][place]),
                            estimated(crowding.independent[place]),
                            estimated(crowding.excess[condition][place], is_change=True),
                        ),
                    )
                )
    return Table(
        "sentences",
        "Mean cosine by number of sentences",
        (
            "Repair",
            "Sentences are",
            "Sentences",
            "Tokens",
            "Mean\ncosine",
            "Means of\nsentences",
            "Independent\nsentences",
            "Excess",
        ),
        2,
        sections(rows),
        footnotes=(
            "Means of sentences: mean cosine of the means of the texts' own sentences, each "
            "embedded alone, weighted if the model does not pool by the mean. Independent "
            "sentences: kρ / (1 + (k − 1)ρ), k being effective ones then. Excess: mean cosine less "
            "means of sentences.",
        ),
    )


def _weights(measurements: Sequence[Measurement]) -> Table:
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(part.condition),
                name(str(part.sentences)),
                *(
                    measured(value)
                    for value in (
                        part.weights.shares[0],
                        part.weights.shares[-1],
                        part.weights.effective,
                        part.weights.explained,
                    )
                ),
            ),
        )
        for one in measurements
        for part in one.collapse.weights
    ]
    return Table(
        "weights",
        "What the embedding of a text holds of each sentence",
        (
            "Repair",
            "Sentences are",
            "Sentences",
            "First\nsentence",
            "Last\nsentence",
            "Effective\nsentences",
            "Explained",
        ),
        2,
        sections(rows),
        footnotes=(_ABOUT_WEIGHTS,),
    )


def _lengths(measurements: Sequence[Measurement]) -> Table:
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(length_range(part.shortest, part.longest)),
                name(str(part.texts)),
                name(str(space.cut)),
                estimated(part.cosine),
                estimated(part.averaging),
                # The first bin is what the others are compared with.
                estimated(part.excess if number else None, is_change=True),
                Entry(f"{space.occurrences:.1f}", space.occurrences),
            ),
        )
        for one in measurements
        if one.collapse.by_length is not None
        for number, (part, space) in enumerate(
            zip(one.collapse.by_length.bins, one.collapse.space, strict=True)
        )
    ]
    hubs = [
        f"{heading_of(one)}, {repair_of(one)}: how often a text is a neighbour goes with its "
        f"length by a rank correlation of {signed(hubs.by_length)}; skewness {hubs.skewness:.2f}, "
        f"{100 * hubs.never:.1f} % of the texts are nobody's neighbour."
        for one in measurements
        if (hubs := one.collapse.hubs) is not None and hubs.by_length is not None
    ]
    return Table(
        "lengths",
        "Whole texts by length",
        (
            "Repair",
            "Length",
            "Texts",
            "Cut",
            "Mean\ncosine",
            "Averaging",
            "Excess",
            "N10",
        ),
        2,
        sections(rows),
        notes=tuple(hubs),
        footnotes=(_ABOUT_LENGTHS,),
    )


def _space(measurements: Sequence[Measurement]) -> Table:
    known = [
        measure
        for measure in every_measure()
        if any(
            space.measures.get(measure.name) is not None
            for one in measurements
            for space in one.collapse.space
        )
    ]
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(length_range(space.shortest, space.longest)),
                *(measured(space.measures.get(measure.name)) for measure in known),
            ),
        )
        for one in measurements
        for space in one.collapse.space
    ]
    return Table(
        "space",
        "The embedding space by length",
        ("Repair", "Length", *(measure.title for measure in known)),
        2,
        sections(rows),
    )


def _shift(measurements: Sequence[Measurement]) -> Table:
    columns = {
        "local": "Local",
        "local_sum": "Local\n(sum)",
        "dispersion": "Dispersion",
        "shift": "Shift",
        "shift_by_sum": "Shift\n(sum)",
        "dilution": "Dilution",
        "overlap": "Overlap",
        "agreement": "Agreement",
    }
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(part.condition),
                name(str(part.sentences)),
                *(measured(getattr(part, column)) for column in columns),
            ),
        )
        for one in measurements
        for part in one.collapse.shift
    ]
    return Table(
        "shift",
        "Semantic shift by number of sentences",
        ("Repair", "Sentences are", "Sentences", *columns.values()),
        2,
        sections(rows),
        footnotes=(_ABOUT_SHIFT,),
    )


def _causes(measurements: Sequence[Measurement]) -> Table:
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(_outcome(cause)),
                name(f"Local as a {cause.local}"),
                estimated(cause.shift, is_change=True),
                estimated(cause.length, is_change=True),
            ),
        )
        for one in measurements
        for cause in one.collapse.causes
    ]
    return Table(
        "causes",
        "Shift or length: which goes with dilution and lost neighbours?",
        ("Repair", "Outcome", "Shift", "Shift\ngiven length", "Length\ngiven shift"),
        3,
        sections(rows),
        footnotes=(_ABOUT_CAUSES,),
    )


def _retrieval(measurements: Sequence[Measurement]) -> Table:
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(str(found.queries)),
                name(str(found.documents)),
                estimated(found.shorter),
                estimated(found.longer),
                estimated(found.difference, is_change=True),
                estimated(found.score_by_length, is_change=True),
                estimated(found.rank_by_length, is_change=True),
                estimated(found.hubs_by_length, is_change=True),
                estimated(found.closeness_by_length, is_change=True),
            ),
        )
        for one in measurements
        if (found := one.collapse.retrieval) is not None
    ]
    return Table(
        "retrieval",
        "Retrieval and the length of documents",
        (
            "Repair",
            "Queries",
            "Documents",
            "Short\nbeats long",
            "Long\nbeats short",
            "Difference",
            "Cosine\nand length",
            "Rank\nand length",
            "N10\nand length",
            "Other queries\nand length",
        ),
        3,
        sections(rows),
        footnotes=(_ABOUT_RETRIEVAL,),
    )


def _search(measurements: Sequence[Measurement]) -> Table:
    searched = [
        (one, found) for one in measurements if (found := one.collapse.retrieval) is not None
    ]
    most = max((len(found.bins) for _, found in searched), default=0)
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(
                    length if part is found.overall else length_range(part.shortest, part.longest)
                ),
                name(str(part.queries)),
                name(str(part.documents)),
                name(str(part.cut)),
                estimated(part.score),
                estimated(part.alignment),
                estimated(part.reciprocal_rank),
                estimated(part.dilution, is_change=True),
                estimated(part.dilution_of_others, is_change=True),
                estimated(part.better_chunk),
                *(
                    estimated(beaten, has_interval=False)
                    for beaten in (*part.beaten, *[None] * (most - len(part.beaten)))
                ),
            ),
        )
        for one, found in searched
        for part in (found.overall, *found.bins)
        for length in (f"all: {length_range(part.shortest, part.longest)}",)
    ]
    return Table(
        "search",
        "Queries by the length of their relevant document",
        (
            "Repair",
            "Length",
            "Queries",
            "Documents",
            "Cut",
            "Cosine",
            "Alignment",
            "Reciprocal\nrank",
            "Best chunk\n− whole",
            "Of other\ndocuments",
            "A chunk is\nbetter",
            *(f"Beaten\nby bin {number}" for number in range(1, most + 1)),
        ),
        2,
        sections(rows),
        footnotes=(_ABOUT_SEARCH,),
    )


def _moderation(measurements: Sequence[Measurement]) -> Table:
    rows = [
        (
            one,
            (
                name(repair_of(one)),
                name(f"Local as a {part.local}"),
                name(part.answer),
                estimated(part.weak, is_change=True),
                estimated(part.strong, is_change=True),
                estimated(part.interaction, is_change=True),
            ),
        )
        for one in measurements
        if (found := one.collapse.retrieval) is not None
        for part in found.moderations
    ]
    return Table(
        "moderation",
        "Does anisotropy harm retrieval only where shift is strong?",
        ("Repair", "Shift", "Answer", "At weak\nshift", "At strong\nshift", "Interaction"),
        3,
        sections(rows),
        footnotes=(_ABOUT_MODERATION,),
    )


def _outcome(cause: Cause) -> str:
    return {"dilution": "dilution", "overlap": "neighbour kept"}[cause.outcome]
