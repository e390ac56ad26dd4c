"""A policy by role follows what encodes: `encode_query`, `encode_document`, mteb, evaluators."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from engines import NOISE_FLOOR, largest_difference
from mteb.mocks.mock_tasks import MockRetrievalTask

from lcbench import inject
from lcbench.errors import InjectionError, RequestError

TEXTS = ["a text to embed", "and one that is longer than the other one", "a third"]
BY_ROLE = {"query": 0.3, "document": 0.6}


@pytest.fixture
def model(make_model: Callable[[str], Path]) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(make_model("bert")), device="cpu")


def at(model: Any, tau: Any) -> Any:
    with inject(model, tau):
        return model.encode(TEXTS, show_progress_bar=False)


def test_each_way_to_encode_gets_its_roles_temperature(model: Any) -> None:
    query, document, plain = at(model, 0.3), at(model, 0.6), model.encode(TEXTS)
    assert min(np.abs(query - document).max(), np.abs(query - plain).max()) > 1e-3
    with inject(model, BY_ROLE) as injection:
        assert np.array_equal(model.encode_query(TEXTS), query)
        assert np.array_equal(model.encode_document(TEXTS), document)
        assert np.array_equal(model.encode(TEXTS, task="query"), query)
        with pytest.raises(InjectionError, match=r'injection\.role = "query"'):
            model.encode(TEXTS)
        with pytest.raises(InjectionError, match="by role"):
            model(model.preprocess(TEXTS))
        injection.role = "query"
        assert np.array_equal(model.encode(TEXTS), query)
        # What a call says of itself counts more.
        assert np.array_equal(model.encode_document(TEXTS), document)
        injection.role = "document"
        assert np.array_equal(model.encode(sentences=TEXTS), document)
        with pytest.raises(RequestError, match="'queries' is none of"):
            injection.role = "queries"
        assert repr(injection) == "<Injection of τ = query=0.3,document=0.6 into BertModel>"
    assert repr(injection).endswith(", removed>")
    assert "encode" not in vars(model)
    assert np.array_equal(model.encode_query(TEXTS), plain)


def test_a_method_of_the_users_own_is_given_back(model: Any) -> None:
    plain, calls = model.encode, []

    def own(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs.get("task"))
        return plain(*args, **kwargs)

    model.encode = own
    with inject(model, BY_ROLE):
        model.encode_query(TEXTS)
    assert model.encode is own
    assert calls == ["query"]


def test_threads_have_roles_of_their_own(model: Any) -> None:
    query, document = at(model, 0.3), at(model, 0.6)
    with inject(model, BY_ROLE), ThreadPoolExecutor(4) as pool:
        both = (model.encode_query, model.encode_document)
        waiting = [pool.submit(both[i % 2], TEXTS, show_progress_bar=False) for i in range(24)]
        for i, one in enumerate(waiting):
            # Threads may share cores in another way, and so round in another order.
            assert largest_difference(one.result(), (query, document)[i % 2]) < NOISE_FLOOR


@pytest.mark.parametrize("tau", [0.3, BY_ROLE], ids=str)
def test_other_processes_are_an_error_and_never_the_baseline(model: Any, tau: Any) -> None:
    with inject(model, tau):
        with pytest.raises(InjectionError, match="pool or of several devices"):
            model.encode_query(TEXTS, device=["cpu", "cpu"])
        with pytest.raises(InjectionError, match="pool or of several devices"):
            model.encode_document(TEXTS, pool={"input": None, "output": None, "processes": []})


def test_a_model_within_is_an_error_without_a_role(model: Any) -> None:
    with inject(model[0].model, BY_ROLE) as injection:
        with pytest.raises(InjectionError, match="by role"):
            model.encode_query(TEXTS)
        injection.role = "query"
        found = model.encode_query(TEXTS)
    assert np.array_equal(found, at(model, 0.3))


QUERIES = {str(i): f"{word} and fruit" for i, word in enumerate(("apple", "pear", "plum", "fig"))}
CORPUS = {
    str(i): f"{word} is a word of {n} others " + "and more of them " * n
    for i, (word, n) in enumerate(
        zip(("apple", "pear", "plum", "fig", "cat", "dog", "cow", "hen"), range(8), strict=True)
    )
}


def _evaluated(model: Any) -> float:
    """nDCG@10 as the evaluator of sentence-transformers has it."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    relevant = {i: {i} for i in QUERIES}
    evaluator = InformationRetrievalEvaluator(QUERIES, CORPUS, relevant, name="t")
    return float(evaluator(model)["t_cosine_ndcg@10"])


def _embedded(model: Any) -> dict[str, Any]:
    """What mteb's wrapper of a SentenceTransformer makes of queries and documents."""
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    seen: dict[str, Any] = {}
    encode = SentenceTransformerEncoderWrapper.encode

    def kept(self: Any, inputs: Any, **kwargs: Any) -> Any:
        found = encode(self, inputs, **kwargs)
        seen[str(kwargs["prompt_type"].value)] = found
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SentenceTransformerEncoderWrapper, "encode", kept)
        mteb.evaluate(model, MockRetrievalTask(), cache=None, show_progress_bar=False)
    return seen


def test_mteb_and_evaluators_are_followed(model: Any) -> None:
    plain = _embedded(model)
    with inject(model, 0.3):
        both, scores = _embedded(model), {"both": _evaluated(model)}
    for role, other in (("query", "document"), ("document", "query")):
        with inject(model, {role: 0.3, other: 1.0}):
            found = _embedded(model)
            scores[role] = _evaluated(model)
        assert np.array_equal(found[role], both[role])
        assert np.abs(found[role] - plain[role]).max() > 1e-3
        assert np.abs(found[other] - plain[other]).max() < 1e-6
    scores["none"] = _evaluated(model)
    # Four temperatures by role, four scores.
    assert len({round(score, 5) for score in scores.values()}) == 4, scores
