"""Embeddings of texts in chunks, against a plain forward pass over the tokens of each chunk."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import NOISE_FLOOR, encoder_of, largest_difference, memory
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from lcbench.encode.chunks import check_model, combined, cut, spans
from lcbench.encode.encoder import Encoder
from lcbench.encode.multivector import MultiVectors
from lcbench.encode.tokens import Tokenizer
from lcbench.errors import RequestError
from lcbench.repair.chunks import Chunks
from lcbench.repair.repair import Repair
from lcbench.repair.repair import parse as parse_repair
from lcbench.tasks.docs.docstrings import collect

SHORT = ["A short text.", "", "The temperature divides the attention logits."]
# Of more tokens than MiniLM's window of 256.
LONG = [
    " ".join(f"word{i} and the {i % 7}th of many sentences." for i in range(28)),
    "Return the least-squares solution to a linear matrix equation. " * 22,
    "One. " * 150,
]
PROMPT = "passage: "


_LOADED: dict[Path, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def _minilm_is_loaded_once(minilm_folder: Path) -> Iterator[None]:
    _LOADED[minilm_folder] = encoder_of(minilm_folder)
    yield
    _LOADED.clear()


def encoder_at(folder: Path, repair: Any, store: Any = None) -> Any:
    """Return an encoder under a repair, with an empty store unless one is given.

    All of MiniLM share an engine: only the one made last can be used.
    """
    return under(repair, _LOADED.get(folder) or encoder_of(folder), store)


def under(repair: Any, other: Any, store: Any = None) -> Any:
    """Return an encoder under a repair that shares the engine of another, with a new store."""
    other.engine._store = store or memory()
    asked = repair if isinstance(repair, Repair) else parse_repair({"chunks": repair})
    encoder: Any = Encoder(other.engine.at(asked), other.mteb_model_meta)
    encoder.engine, encoder.model = other.engine, other.model
    return encoder


def pooled(model: SentenceTransformer, ids: Sequence[int]) -> NDArray[np.float64]:
    """Return the mean state of the tokens of one text, from the transformer alone."""
    with torch.inference_mode():
        inputs = torch.tensor([list(ids)])
        states = model[0].auto_model(input_ids=inputs, attention_mask=torch.ones_like(inputs))
        found: NDArray[np.float64] = states.last_hidden_state[0].double().mean(dim=0).numpy()
    return found


def chunks_by_hand(
    model: SentenceTransformer, text: str, prompt: str, size: int, overlap: int = 0
) -> list[list[int]]:
    """Return the ids of each chunk, for a tokenizer of words between [CLS] and [SEP]."""
    first, *lead, last = model.tokenizer(prompt, verbose=False)["input_ids"]
    words = model.tokenizer(text, verbose=False)["input_ids"][1:-1]
    room = size - 2 - len(lead)
    starts = list(range(0, max(1, len(words) - overlap), room - overlap))
    starts[-1] = max(0, len(words) - room)
    return [[first, *lead, *words[start : start + room], last] for start in starts]


@given(
    count=st.integers(0, 200),
    room=st.integers(1, 40),
    data=st.data(),
    full=st.booleans(),
)
def test_chunks_cover_a_text_in_order(count: int, room: int, data: Any, full: bool) -> None:
    overlap = data.draw(st.integers(0, room - 1))
    found = spans(count, room, overlap, full=full)
    assert found[0][0] == 0
    assert found[-1][1] == count
    assert all(stop - start <= room for start, stop in found)
    between = list(itertools.pairwise(found))
    assert all(here[1] - after[0] == overlap for here, after in between[:-1])
    if between:
        (_, before), (last, _) = between[-1]
        assert before - last == overlap if not full else before - last >= overlap
        # None is there for what others have already.
        assert found[-1][1] > found[-2][1]
        assert all(stop - start == room for start, stop in found[:-1])
        assert not full or found[-1][1] - found[-1][0] == room


@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_each_chunk_has_the_prompt_and_special_tokens_and_none_is_longer(
    minilm_folder: Path, prompt: str
) -> None:
    model = encoder_at(minilm_folder, Repair()).model
    tokenizer = Tokenizer(model)
    framing = model.tokenizer(prompt)["input_ids"]
    for overlap, last in ((0, "full"), (0, "rest"), (5, "full"), (5, "rest")):
        chunks = Chunks("mean", 32, overlap=overlap, last=last)  # type: ignore[arg-type]
        for text, found in zip(LONG, cut(tokenizer, LONG, prompt, chunks), strict=True):
            whole = model.tokenizer(prompt + text, verbose=False)["input_ids"]
            assert found.length == len(whole)
            assert not found.is_whole
            bodies = []
            for one in found.chunks:
                ids = one.ids.tolist()
                assert len(ids) <= 32
                assert ids[: len(framing) - 1] == framing[:-1]
                assert ids[-1] == framing[-1]
                bodies.append(ids[len(framing) - 1 : -1])
            assert {len(one) for one in bodies[:-1]} == {32 - len(framing)}
            words = whole[len(framing) - 1 : -1]
            tail = len(bodies[-1])
            stitched = [w for one in bodies[:-1] for w in one[: len(one) - overlap]]
            start = len(words) - tail
            assert stitched[:start] + bodies[-1] == words


@pytest.mark.parametrize("architecture", ["bert", "roberta", "t5", "mpnet"])
def test_a_long_text_is_the_mean_of_its_chunks(
    architecture: str, make_model: Callable[[str], Path]
) -> None:
    plain: Any = encoder_of(make_model(architecture))
    base = plain.embed(LONG, "document", PROMPT)
    for overlap in (0, 7):
        encoder = under({"mean": {"size": 40, "overlap": overlap}}, plain)
        found = encoder.embed(SHORT + LONG, "document", PROMPT)[len(SHORT) :]
        for text, row in zip(LONG, found, strict=True):
            ids = chunks_by_hand(encoder.model, text, PROMPT, 40, overlap)
            assert len(ids) > 2
            expected = np.mean([pooled(encoder.model, one) for one in ids], axis=0)
            assert np.abs(row - expected).max() / np.abs(expected).max() < 1e-5
        assert largest_difference(found, base) > 1e-2


@pytest.mark.parametrize("normalise", ["after", "before"])
def test_minilm_scales_after_the_mean_or_before_it_too(minilm_folder: Path, normalise: str) -> None:
    encoder = encoder_at(minilm_folder, {"mean": {"size": 64, "normalise": normalise}})
    found = encoder.embed(LONG, "document")
    for text, row in zip(LONG, found, strict=True):
        rows = [pooled(encoder.model, ids) for ids in chunks_by_hand(encoder.model, text, "", 64)]
        if normalise == "before":
            rows = [one / np.linalg.norm(one) for one in rows]
        mean = np.mean(rows, axis=0)
        assert largest_difference(row, mean / np.linalg.norm(mean)) < 1e-6
    assert np.allclose(np.linalg.norm(found, axis=1), 1)


def test_texts_of_one_chunk_have_the_bits_that_they_have_without_chunking(
    minilm_folder: Path,
) -> None:
    store = memory()
    base = encoder_at(minilm_folder, Repair(), store)
    plain = base.embed(SHORT, "document")
    encoder = encoder_at(minilm_folder, {"mean": 64}, store)
    found = encoder.embed([*LONG, *SHORT], "document")
    assert np.array_equal(found[len(LONG) :], plain)
    assert encoder.counters.encoded_texts == len(LONG)
    # And the other way round, at another size too.
    store = memory()
    again = encoder_at(minilm_folder, {"mean": 128}, store)
    rows = again.embed([*LONG, *SHORT], "document")
    other = encoder_at(minilm_folder, Repair(), store)
    assert np.array_equal(other.embed(SHORT, "document"), rows[len(LONG) :])
    assert other.counters.encoded_texts == 0


def test_an_embedding_is_the_same_alone_in_a_batch_and_in_any_order(minilm_folder: Path) -> None:
    for repair in ({"mean": {"size": 48, "overlap": 8}}, {"late": 48}):
        together = encoder_at(minilm_folder, repair).embed([*SHORT, *LONG], "document")
        turned = encoder_at(minilm_folder, repair).embed([*LONG[::-1], *SHORT[::-1]], "document")
        assert largest_difference(together[::-1], turned) < NOISE_FLOOR
        for text, row in zip([*SHORT, *LONG], together, strict=True):
            alone = encoder_at(minilm_folder, repair).embed([text], "document")[0]
            assert largest_difference(alone, row) < NOISE_FLOOR


def test_what_is_encoded_is_counted_and_stored(minilm_folder: Path) -> None:
    store = memory()
    encoder = encoder_at(minilm_folder, {"mean": 64}, store)
    encoder.embed([*SHORT, *LONG], "document")
    model = encoder.model
    ids = [tuple(one) for text in LONG for one in chunks_by_hand(model, text, "", 64)]
    short = [len(model.tokenizer(text)["input_ids"]) for text in SHORT]
    counters = encoder.counters
    assert counters.texts == counters.unique_texts == counters.encoded_texts == 6
    # Repeated sentences make equal chunks, which are encoded once.
    assert counters.encoded_chunks == len(set(ids)) < len(ids)
    assert counters.encoded_tokens == sum(map(len, set(ids))) + sum(short)
    assert counters.padded_tokens >= counters.encoded_tokens
    again = encoder_at(minilm_folder, {"mean": 64}, store)
    again.embed([*SHORT, *LONG], "document")
    assert again.counters.encoded_texts == again.counters.encoded_tokens == 0
    words = [len(model.tokenizer(text, verbose=False)["input_ids"]) for text in LONG]
    assert again.lengths([*LONG, *SHORT], role="document") == [*words, *short]
    window = model.max_seq_length
    assert again.lengths(LONG, role="query") == [min(window, one) for one in words]


def test_no_more_is_read_than_asked_for(minilm_folder: Path) -> None:
    some = encoder_at(minilm_folder, {"mean": {"size": 64, "most": 100, "last": "rest"}})
    found = some.embed(LONG, "document")
    assert some.lengths(LONG, role="document") == [100, 100, 100]
    for text, row in zip(LONG, found, strict=True):
        whole = some.model.tokenizer(text, verbose=False)["input_ids"]
        first, words, last = whole[0], whole[1:99], whole[-1]
        rows = [pooled(some.model, [first, *part, last]) for part in (words[:62], words[62:])]
        mean = np.mean(rows, axis=0)
        assert largest_difference(row, mean / np.linalg.norm(mean)) < 1e-6
    first = encoder_at(minilm_folder, {"first": 64})
    cut_off = first.embed([*SHORT, *LONG], "document")
    assert first.lengths([*LONG, SHORT[1]], role="document") == [64, 64, 64, 2]
    first.model.max_seq_length = 64
    expected = first.model.encode([*SHORT, *LONG])
    first.model.max_seq_length = 256
    assert largest_difference(cut_off, expected) < 1e-6
    # What is cut there is not taken for the whole text.
    store = memory()
    least = encoder_at(minilm_folder, {"mean": {"size": 64, "most": 64}}, store)
    least.embed(LONG, "document")
    base = encoder_at(minilm_folder, Repair(), store)
    base.embed(LONG, "document")
    assert base.counters.encoded_texts == len(LONG)


def test_queries_are_the_baselines_unless_asked(minilm_folder: Path) -> None:
    store = memory()
    plain = encoder_at(minilm_folder, Repair(), store).embed(LONG, "query")
    assert np.array_equal(
        encoder_at(minilm_folder, {"mean": 64}, store).embed(LONG, "query"), plain
    )
    asked = {"mean": {"size": 64, "queries": True}}
    found = encoder_at(minilm_folder, asked, store).embed(LONG, "query")
    documents = encoder_at(minilm_folder, {"mean": 64}, store).embed(LONG, "document")
    assert largest_difference(found, documents) < NOISE_FLOOR
    assert largest_difference(found, plain) > 1e-2


def test_chunks_are_encoded_at_the_temperature(minilm_folder: Path) -> None:
    repair = parse_repair({"tau": 0.7, "chunks": {"mean": 64}})
    encoder = encoder_at(minilm_folder, repair)
    found = encoder.embed([*SHORT, *LONG], "document")
    alone = encoder_at(minilm_folder, parse_repair({"tau": 0.7}))
    assert largest_difference(found[:3], alone.embed(SHORT, "document")) < NOISE_FLOOR
    hot = encoder_at(minilm_folder, {"mean": 64}).embed(LONG, "document")
    assert largest_difference(found[3:], hot) > 1e-2


@pytest.mark.parametrize("normalise", ["after", "before"])
@pytest.mark.parametrize("unpadded", [False, True])
def test_late_chunks_are_means_of_the_states_of_one_pass(
    minilm_folder: Path, normalise: str, unpadded: bool
) -> None:
    repair = {"late": {"size": 50, "normalise": normalise}}
    encoder = encoder_at(minilm_folder, repair)
    if unpadded:
        from lcbench.encode.unpadded import use_unpadded

        # Not of the model that the other tests share.
        own: Any = encoder_of(minilm_folder)
        assert use_unpadded(own.model) is None
        encoder = encoder_at_loaded(own, repair)
        packed = encoder_at_loaded(own, {"mean": 50}).embed(LONG, "document")
        padded = encoder_at(minilm_folder, {"mean": 50}).embed(LONG, "document")
        assert largest_difference(packed, padded) < 2e-6
    found = encoder.embed([*SHORT, *LONG], "document")
    base = encoder_at(minilm_folder, Repair()).embed(SHORT, "document")
    assert largest_difference(found[:3], base) < NOISE_FLOOR
    for text, row in zip(LONG, found[3:], strict=True):
        window = encoder.model.max_seq_length
        ids = encoder.model.tokenizer(text, truncation=True, max_length=window)["input_ids"]
        with torch.inference_mode():
            inputs = torch.tensor([ids])
            output = encoder.model[0].auto_model(
                input_ids=inputs, attention_mask=torch.ones_like(inputs)
            )
        states = output.last_hidden_state[0].double().numpy()
        rows = [states[i : i + 50].mean(axis=0) for i in range(0, len(states), 50)]
        if normalise == "before":
            rows = [one / np.linalg.norm(one) for one in rows]
        mean = np.mean(rows, axis=0)
        assert largest_difference(row, mean / np.linalg.norm(mean)) < 2e-6


def encoder_at_loaded(encoder: Any, repair: Any) -> Any:
    """Return an encoder like another, made anew with its loaded model."""
    from engines import MADE

    from lcbench.encode.engine import Engine
    from lcbench.encode.forward import Forward

    engine = Engine(Forward(encoder.model), memory(), encoder.engine._identity)
    MADE.append(engine)
    made: Any = Encoder(engine.at(parse_repair({"chunks": repair})), encoder.mteb_model_meta)
    made.engine, made.model = engine, encoder.model
    return made


def test_layers_after_the_pooling_see_each_chunk(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    transformer, pooling = SentenceTransformer(str(make_model("bert")), device="cpu").children()
    width = pooling.get_embedding_dimension()
    dense = Dense(width, 8, activation_function=torch.nn.Tanh())
    modules = [transformer, pooling, dense, Normalize()]
    SentenceTransformer(modules=modules, device="cpu", truncate_dim=5).save(str(tmp_path))
    encoder = encoder_at(tmp_path, {"mean": 40})
    found = encoder.embed([*SHORT, *LONG], "document")
    assert largest_difference(found[:3], encoder.model.encode(SHORT)) < 1e-6
    weight, bias = (one.detach().double().numpy() for one in dense.parameters())
    for text, row in zip(LONG, found[3:], strict=True):
        ids = chunks_by_hand(encoder.model, text, "", 40)
        rows = [np.tanh(weight @ pooled(encoder.model, one) + bias) for one in ids]
        mean = np.mean(rows, axis=0)
        kept = len(encoder.model.encode("a"))
        assert largest_difference(row, (mean / np.linalg.norm(mean))[:kept]) < 1e-5


def test_late_chunks_of_equal_length_are_the_models_own_mean(minilm_folder: Path) -> None:
    # MiniLM reads 256 tokens: four of 64. Only the weights of chunks could differ.
    base = encoder_at(minilm_folder, Repair()).embed(LONG, "document")
    assert largest_difference(encoder_at(minilm_folder, {"late": 64}).embed(LONG), base) < 1e-6
    uneven = encoder_at(minilm_folder, {"late": 100}).embed(LONG)
    assert largest_difference(uneven, base) > 1e-3


def test_each_chunk_has_a_vector_of_its_own(minilm_folder: Path) -> None:
    store = memory()
    encoder = encoder_at(minilm_folder, {"max": 64}, store)
    texts = [LONG[0], *SHORT, LONG[1], LONG[0]]
    found = encoder.vectors(texts, "document")
    assert isinstance(found, MultiVectors)
    assert len(found) == len(texts)
    plain = encoder_at(minilm_folder, Repair(), store).embed(SHORT, "document")
    assert [len(one) for one in found[1:4]] == [1, 1, 1]
    assert np.array_equal(np.concatenate(list(found[1:4])), plain)
    for text, rows in ((LONG[0], found[0]), (LONG[1], found[4]), (LONG[0], found[5])):
        ids = chunks_by_hand(encoder.model, text, "", 64)
        expected = [pooled(encoder.model, one) for one in ids]
        expected = [one / np.linalg.norm(one) for one in expected]
        assert largest_difference(rows, expected) < 1e-6
    counters = encoder.counters
    assert counters.vectors_of == 5
    assert counters.vectors == sum(len(found[i]) for i in range(5))
    assert counters.encoded_texts == 5
    again = encoder_at(minilm_folder, {"max": 64}, store)
    same = again.vectors(texts, "document")
    assert isinstance(same, MultiVectors)
    assert np.array_equal(same.rows, found.rows)
    assert again.counters.encoded_texts == 0
    queries = again.vectors(["a linear equation", "many sentences"], "query")
    assert not isinstance(queries, MultiVectors)
    similarity = again.similarity(queries, found).numpy()
    assert similarity.shape == (2, len(texts))
    by_hand = [[(query @ np.asarray(rows).T).max() for rows in found] for query in queries]
    assert largest_difference(similarity, by_hand) < 1e-6
    # As mteb reranks: one query, a list of some documents.
    some = again.similarity(torch.from_numpy(queries[:1]), [found[4], found[1]]).numpy()
    assert largest_difference(some, similarity[:1, [4, 1]]) < 1e-6


def test_a_chunk_needs_room_for_text(minilm_folder: Path) -> None:
    tokenizer = Tokenizer(encoder_at(minilm_folder, Repair()).model)
    for size, overlap, prompt in ((2, 0, ""), (4, 0, PROMPT), (40, 36, PROMPT)):
        with pytest.raises(RequestError, match="no room is left for the text"):
            cut(tokenizer, SHORT, prompt, Chunks("mean", size, overlap=overlap))
    assert len(cut(tokenizer, LONG[:1], PROMPT, Chunks("mean", 5))[0].chunks) > 100


def test_models_whose_chunks_cannot_be_combined_are_refused(
    make_model: Callable[[str], Path],
) -> None:
    transformer = Transformer(str(make_model("bert")), max_seq_length=48)
    width = transformer.get_embedding_dimension()
    cls = SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode="cls")])
    check_model(cls, Chunks("mean", 32), "a/cls")
    with pytest.raises(RequestError, match="a/cls pools by cls"):
        check_model(cls, Chunks("late", 32), "a/cls")
    dot = SentenceTransformer(modules=[transformer, Pooling(width)], similarity_fn_name="dot")
    check_model(dot, Chunks("mean", 32), "a/dot")
    with pytest.raises(RequestError, match="compares embeddings by their dot product"):
        check_model(dot, Chunks("mean", 32, normalise="before"), "a/dot")
    odd = SentenceTransformer(modules=[transformer, Dense(width, width), Pooling(width)])
    with pytest.raises(RequestError, match="has Transformer, Dense, Pooling"):
        check_model(odd, Chunks("mean", 32), "a/odd")
    scaled = SentenceTransformer(
        modules=[transformer, Pooling(width), Dense(width, 8), Normalize()]
    )
    check_model(scaled, Chunks("late", 32), "a/scaled")


@pytest.mark.parametrize("of", ["words", pytest.param("docs", marks=pytest.mark.exhaustive)])
def test_long_documents_in_chunks_of_the_window(minilm_folder: Path, of: str) -> None:
    if of == "docs":
        # Of 6,000 characters or a few more; whole files would take half a minute.
        texts = sorted((one.body for one in collect() if len(one.body) > 6_000), key=len)[:3]
    else:
        words = " ".join(SHORT + LONG).split()
        texts = [" ".join(np.random.default_rng(0).choice(words, 400))]
    encoder = encoder_at(minilm_folder, {"mean": 256})
    found = encoder.embed(texts, "document")
    for text, row in zip(texts, found, strict=True):
        ids = chunks_by_hand(encoder.model, text, "", 256)
        assert len(ids) > 2
        mean = np.mean([pooled(encoder.model, one) for one in ids], axis=0)
        assert largest_difference(row, mean / np.linalg.norm(mean)) < 1e-6


def test_the_mean_of_equal_chunks_is_each_of_them() -> None:
    rows = np.array([[3.0, 4.0], [3.0, 4.0], [1.0, 0.0]])
    assert combined(rows, [2, 1], before=False).tolist() == [[3, 4], [1, 0]]
    assert np.allclose(combined(rows, [2, 1], before=True), [[0.6, 0.8], [1, 0]])
