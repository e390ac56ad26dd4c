"""Measures of retrieval by length, against loops over made-up embeddings with a known answer."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lcbench.errors import RequestError
from lcbench.measures import geometry
from lcbench.measures import retrieval as module
from lcbench.measures import shift as shifts
from lcbench.measures.queries import Search
from lcbench.measures.retrieval import Retrieval, measure_retrieval

Matrix = NDArray[np.float64]
SIZE = 64


def drawn(seed: int = 0, queries: int = 40, documents: int = 70) -> tuple[Matrix, Any, Any]:
    random = np.random.default_rng(seed)
    scores = random.standard_normal((queries, documents)).round(1)
    relevant = random.integers(0, documents, queries)
    others = random.random((queries, documents)) < 0.9
    others[np.arange(queries), relevant] = False
    return scores, relevant, others


def test_ranks_and_who_is_ahead() -> None:
    scores, relevant, others = drawn()
    ahead = module.beating(scores, relevant, others)
    ranks = module.ranks(scores, relevant, others)
    for query, wanted in enumerate(relevant):
        above = [
            document
            for document in range(70)
            if others[query, document] and scores[query, document] > scores[query, wanted]
        ]
        assert np.flatnonzero(ahead[query]).tolist() == above
        assert ranks[query] == 1 + len(above)
    with pytest.raises(RequestError, match=r"expected \(queries, documents\)"):
        module.ranks(scores, relevant[1:], others)


def test_who_is_ahead_by_length() -> None:
    scores, relevant, others = drawn()
    bins = np.random.default_rng(1).integers(0, 3, 70)
    ahead, compared = module.beaten_by_length(scores, relevant, others, bins)
    for query in range(40):
        for number in range(3):
            there = [d for d in range(70) if bins[d] == number and others[query, d]]
            assert compared[query, number] == len(there)
            assert ahead[query, number] == sum(
                scores[query, d] > scores[query, relevant[query]] for d in there
            )


def test_occurrences_leave_relevant_documents_out() -> None:
    scores, _, others = drawn()
    expected = np.zeros(70, dtype=int)
    for query in range(40):
        there = [d for d in range(70) if others[query, d]]
        for document in sorted(there, key=lambda d: (-scores[query, d], d))[:10]:
            expected[document] += 1
    assert (module.occurrences(scores, others) == expected).all()
    # Fewer documents than neighbours.
    few = np.zeros((1, 3), dtype=bool)
    few[0, 1] = True
    assert module.occurrences([[3.0, 2.0, 1.0]], few).tolist() == [0, 1, 0]


def test_best_chunks_dilute_evidence_as_the_single_function_says() -> None:
    random = np.random.default_rng(2)
    queries, documents = random.standard_normal((2, 5, 8))
    chunks = {1: random.standard_normal((3, 8)), 4: random.standard_normal((1, 8))}
    found = module.best_chunks(queries, chunks, 5)
    assert np.isnan(found[:, [0, 2, 3]]).all()
    scores = geometry.unit(queries) @ geometry.unit(documents).T
    for query in range(5):
        for number, rows in chunks.items():
            expected = shifts.evidence_dilution(queries[query], rows, documents[number])
            assert found[query, number] - scores[query, number] == pytest.approx(expected)


def test_closeness_is_the_mean_cosine_with_the_others() -> None:
    rows = np.random.default_rng(3).standard_normal((9, 6)) + 0.5
    corpora = np.array([0, 0, 0, 0, 1, 1, 1, 0, 2])
    found = module.closeness(rows, corpora)
    for place in range(8):
        cosines = [
            rows[place] @ rows[other] / np.linalg.norm(rows[place]) / np.linalg.norm(rows[other])
            for other in range(9)
            if other != place and corpora[other] == corpora[place]
        ]
        assert found[place] == pytest.approx(np.mean(cosines))
    assert np.isnan(found[8])
    whole = module.closeness(rows, np.zeros(9))
    assert whole.mean() == pytest.approx(geometry.mean_cosine(rows))


def test_moderation_solves_the_normal_equations() -> None:
    random = np.random.default_rng(4)
    cause, moderator, given, noise = random.standard_normal((4, 300))
    outcome = 0.5 * cause - 0.8 * cause * moderator + given + noise

    def z(values: Matrix) -> Matrix:
        # There are no ties.
        ranks = np.argsort(np.argsort(values)).astype(float)
        return (ranks - ranks.mean()) / ranks.std()

    design = np.stack(
        [np.ones(300), z(cause), z(moderator), z(cause) * z(moderator), z(given)], axis=1
    )
    expected = np.linalg.solve(design.T @ design, design.T @ z(outcome))
    slope, interaction = module.moderation(outcome, cause, moderator, given)
    assert (slope, interaction) == pytest.approx((expected[1], expected[3]))
    assert interaction < -0.2
    # Ranks alone count; the sign of the cause changes the sign of both.
    assert module.moderation(outcome, np.exp(cause), moderator**3, given) == pytest.approx(
        (slope, interaction)
    )
    assert module.moderation(outcome, -cause, moderator, given) == pytest.approx(
        (-slope, -interaction)
    )


def test_moderation_by_what_does_not_vary_is_undefined() -> None:
    values = np.arange(10.0)
    same = np.ones(10)
    for outcome, cause, moderator in ((same, values, values), (values, same, values)):
        assert np.isnan(module.moderation(outcome, cause, moderator, values)).all()
    assert np.isnan(module.moderation(values, values, same, values)).all()
    # What is held fixed may be the same for all.
    assert module.moderation(values, values, values[::-1], same)[1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("lengths", "bins", "starts"),
    [
        (range(1, 121), 4, (1, 31, 61, 91)),
        (range(1, 121), 5, (1, 31, 61, 91)),
        (range(1, 60), 5, (1,)),
        # Many texts of one length, as where they are cut: they are one bin.
        ([*range(1, 61), *[99] * 60], 4, (1, 31, 99)),
        ([*range(1, 11), *[99] * 110], 4, (1,)),
        ([7] * 100, 3, (7,)),
    ],
)
def test_bins_by_length(lengths: Any, bins: int, starts: tuple[int, ...]) -> None:
    assert module.length_bins(list(lengths), bins) == starts


def search(seed: int = 0, documents: int = 200, lengths: Any = None) -> Search:
    random = np.random.default_rng(seed)
    relevant = random.permutation(documents)[:150]
    others = np.ones((150, documents), dtype=bool)
    others[np.arange(150), relevant] = False
    sizes = random.integers(20, 400, documents) if lengths is None else lengths
    return Search(
        queries=("",) * 150,
        documents=("",) * documents,
        relevant=relevant,
        others=others,
        corpora=np.zeros(documents, dtype=np.int64),
        lengths=sizes,
        cut=sizes > 390,
        chunks={},
    )


def measured(asked: Search, pull: float = 0.0, seed: int = 0, parts: int = 3) -> Retrieval:
    """Measure a model that draws documents to all queries by `pull` a standard deviation of length.

    A document is the mean of its chunks, and a query is near to the first of them.
    """
    random = np.random.default_rng([seed, 1])
    common = np.eye(SIZE)[0]
    chunks = random.standard_normal((len(asked.lengths), parts, SIZE)) / np.sqrt(SIZE)
    chunks[:, :, 0] = 0
    z = (asked.lengths - asked.lengths.mean()) / max(float(asked.lengths.std()), 1.0)
    documents = chunks.mean(axis=1) + (0.5 + pull * z)[:, None] * common
    queries = chunks[asked.relevant, 0] + random.standard_normal((150, SIZE)) / 6 + common
    relevant = {int(one): chunks[one] for one in asked.relevant}
    return measure_retrieval(asked, queries, documents, relevant, 4, 1_000, 0)


def expected_score_by_length(pull: float) -> float:
    """Return the rank correlation of length and cosine in the world of `measured`.

    With e the common direction, z the standardised length, uniform in ±√3, and c₁, c₂, c₃ and n
    independent: q = c₁ + n / 6 + e and d = (c₁ + c₂ + c₃) / 3 + (0.5 + pull z) e, so that q·d and
    the norms are drawn without any of lcbench's functions.
    """
    random, count = np.random.default_rng(9), 20_000
    z = random.uniform(-np.sqrt(3), np.sqrt(3), count)
    c = random.standard_normal((3, count, SIZE - 1)) / np.sqrt(SIZE)
    n, common = random.standard_normal((count, SIZE - 1)) / 6, 1 + random.standard_normal(count) / 6
    along = 0.5 + pull * z
    product = ((c[0] + n) * c.mean(axis=0)).sum(axis=1) + common * along
    of_query = ((c[0] + n) ** 2).sum(axis=1) + common**2
    of_document = (c.mean(axis=0) ** 2).sum(axis=1) + along**2
    return float(spearmanr(z, product / np.sqrt(of_query * of_document)).statistic)


def test_a_model_that_prefers_long_texts_one_that_prefers_short_ones_and_one_that_does_not() -> (
    None
):
    longer, shorter, neither = (measured(search(), pull) for pull in (0.15, -0.15, 0.0))
    assert longer.difference is not None
    assert longer.difference.high < 0
    for found, pull in ((longer, 0.15), (shorter, -0.15), (neither, 0.0)):
        assert found.score_by_length is not None
        # Of the world that the 150 are drawn from; of so many, the error is below 3 / √150.
        expected = expected_score_by_length(pull)
        assert found.score_by_length.low < expected < found.score_by_length.high
        assert found.score_by_length.value == pytest.approx(expected, abs=3 / np.sqrt(150))
    assert expected_score_by_length(0.15) > 0.2
    assert longer.rank_by_length is not None
    assert longer.rank_by_length.high < 0
    assert longer.closeness_by_length is not None
    assert longer.closeness_by_length.low > 0.9
    assert longer.hubs_by_length is not None
    assert longer.hubs_by_length.low > 0.5
    assert shorter.difference is not None
    assert shorter.difference.low > 0
    assert shorter.closeness_by_length is not None
    assert shorter.closeness_by_length.high < -0.9
    assert neither.difference is not None
    assert neither.difference.low < 0 < neither.difference.high


# Binomial(60, .95): fewer than 51 in 1 of 2,000 cases; of 12, fewer than 8 in 1 of 5,000.
@pytest.mark.parametrize(
    ("seeds", "least"), [(12, 8), pytest.param(60, 51, marks=pytest.mark.exhaustive)]
)
def test_an_interval_of_no_preference_contains_none_in_95_of_100(seeds: int, least: int) -> None:
    contained = 0
    for seed in range(seeds):
        found = measured(search(seed), 0.0, seed).difference
        assert found is not None
        contained += found.low <= 0 <= found.high
    assert contained >= least


def test_shares_by_pairs_of_bins_are_those_of_loops() -> None:
    asked = search()
    random = np.random.default_rng(5)
    queries, documents = random.standard_normal((150, 16)), random.standard_normal((200, 16))
    chunks = {int(one): random.standard_normal((4, 16)) for one in asked.relevant}
    found = measure_retrieval(asked, queries, documents, chunks, 4, 1_000, 0)
    scores = geometry.unit(queries) @ geometry.unit(documents).T
    starts = [one.shortest for one in found.bins]
    bin_of = [max(sum(start <= length for start in starts) - 1, 0) for length in asked.lengths]
    wins: dict[tuple[int, int], list[bool]] = {}
    for query, wanted in enumerate(asked.relevant):
        for document in range(200):
            if document != wanted:
                pair = bin_of[wanted], bin_of[document]
                wins.setdefault(pair, []).append(scores[query, document] > scores[query, wanted])
    for (one, other), won in wins.items():
        share = found.bins[one].beaten[other]
        assert share is not None
        assert share.value == pytest.approx(np.mean(won))
        assert share.low <= share.value <= share.high
    for side, estimate in ((-1, found.shorter), (1, found.longer)):
        pairs = [won for (one, other), won in wins.items() if np.sign(other - one) == side]
        assert estimate is not None
        assert estimate.value == pytest.approx(np.mean(np.concatenate(pairs)))
    assert found.difference is not None
    assert found.difference.value == pytest.approx(found.shorter.value - found.longer.value)  # type: ignore[union-attr]


def test_bins_have_their_alignment_rank_and_dilution() -> None:
    asked = search()
    random = np.random.default_rng(6)
    queries, documents = random.standard_normal((150, 16)), random.standard_normal((200, 16))
    chunks = {int(one): random.standard_normal((4, 16)) for one in asked.relevant}
    found = measure_retrieval(asked, queries, documents, chunks, 4, 1_000, 0)
    assert found.overall.queries == sum(one.queries for one in found.bins) == 150
    assert found.overall.documents == sum(one.documents for one in found.bins) == 200
    assert found.overall.cut == sum(one.cut for one in found.bins) == (asked.lengths > 390).sum()
    scores = geometry.unit(queries) @ geometry.unit(documents).T
    ranks = module.ranks(scores, asked.relevant, asked.others)
    sizes = asked.lengths[asked.relevant]
    for part in (found.overall, *found.bins):
        here = np.flatnonzero((part.shortest <= sizes) & (sizes <= part.longest))
        assert part.queries == len(here)
        partners = documents[asked.relevant[here]]
        assert part.alignment.value == pytest.approx(geometry.alignment(queries[here], partners))
        assert part.reciprocal_rank.value == pytest.approx(np.mean(1 / ranks[here]))
        losses = [
            shifts.evidence_dilution(queries[row], chunks[wanted], documents[wanted])
            for row, wanted in zip(here, asked.relevant[here].tolist(), strict=True)
        ]
        assert part.dilution.value == pytest.approx(np.mean(losses))
        assert part.better_chunk.value == pytest.approx(np.mean(np.array(losses) > 0))
    part = found.bins[0]
    here = np.flatnonzero(sizes <= part.longest)
    elsewhere = [
        np.mean(
            [
                shifts.evidence_dilution(queries[row], chunks[other], documents[other])
                for other in asked.relevant[here].tolist()
                if other != asked.relevant[row]
            ]
        )
        for row in here
    ]
    assert part.dilution_of_others is not None
    assert part.dilution_of_others.value == pytest.approx(np.mean(elsewhere))


def test_evidence_is_diluted_where_one_chunk_of_many_answers() -> None:
    one, many = measured(search(), parts=1), measured(search(), parts=6)
    assert many.overall.dilution_of_others is not None
    # A single chunk lies in the document's direction but for the common one.
    assert many.overall.dilution.low > one.overall.dilution.high
    assert many.overall.dilution.low > many.overall.dilution_of_others.high


def test_documents_of_one_length_say_nothing_of_length() -> None:
    found = measured(search(lengths=np.full(200, 254)))
    assert found.bins == ()
    assert found.overall.beaten == ()
    assert (found.overall.shortest, found.overall.longest) == (254, 254)
    nothing = (found.shorter, found.longer, found.difference, found.score_by_length)
    assert {*nothing, found.rank_by_length, found.hubs_by_length} == {None}
    assert found.closeness_by_length is None
    assert 0 < found.overall.reciprocal_rank.value <= 1


@pytest.mark.parametrize(
    ("slope", "interaction", "answer"),
    [(-0.6, -0.6, "yes"), (-0.9, 0.0, "no"), (0.5, 0.0, "no"), (-0.9, 0.5, "no")],
)
def test_the_claim_on_anisotropy_is_answered(
    slope: float, interaction: float, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks are made from closeness and shift, which are made to be independent."""
    asked = search()
    random = np.random.default_rng(7)
    near, moved, noise = random.standard_normal((3, 150))
    outcome = slope * near + interaction * near * moved + noise / 2
    found = np.argsort(np.argsort(-outcome)) + 1
    place = {int(one): number for number, one in enumerate(asked.relevant)}
    close = np.zeros(200)
    close[asked.relevant] = near
    monkeypatch.setattr(module, "closeness", lambda *_: close)
    # As many chunks with as large a step as give this shift.
    chunks = {}
    for one, number in place.items():
        angle = np.pi / 4 * (1 + np.tanh(moved[number])) / 2 + 0.1
        chunks[one] = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    owners = list(module.samples(np.arange(150), 1_000, 0))
    made = module._moderations(asked, np.ones((200, 2)), chunks, found, owners, 150)
    assert [one.local for one in made] == ["mean", "sum"]
    assert [one.answer for one in made] == [answer, answer]


def test_it_cannot_be_told_from_noise() -> None:
    answers = {measured(search(seed), 0.0, seed).moderations[0].answer for seed in range(3)}
    assert "yes" not in answers
