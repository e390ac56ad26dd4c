"""Texts reach the model as its makers mean: the role, lengths by role, truncated embeddings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composed import composed
from engines import NOISE_FLOOR, encoder_of, settings
from observers import Recorded

from lcbench.api.evaluate import carry_out
from lcbench.encode.load import load
from lcbench.encode.options import EngineSettings
from lcbench.encode.roles import check_routes, check_windows, depends_on_role
from lcbench.errors import RequestError
from lcbench.hub.models import locate
from lcbench.run.engines import load_for
from lcbench.settings.read import read

TEXTS = [
    "an apple a day keeps the doctor away",
    "pears",
    "plums and damsons " * 12,
    "the quick brown fox jumps over the lazy dog",
]
ROLES: tuple[Any, ...] = ("query", "document", None)


def _dense(seed: int) -> Any:
    import torch
    from sentence_transformers.base.modules import Dense

    torch.manual_seed(seed)
    return Dense(32, 32)


def _dense_routes(folder: Path, default: str | None = "document") -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    plain = SentenceTransformer(str(folder), device="cpu")
    router = Router.for_query_document(
        query_modules=[_dense(1)],
        document_modules=[_dense(2)],
        default_route=default,
        allow_empty_key=False,
    )
    return SentenceTransformer(modules=[*plain.children(), router], device="cpu")


def _shared_transformer(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    plain = SentenceTransformer(str(folder), device="cpu")
    router = Router.for_query_document(
        query_modules=[*plain.children(), _dense(1)],
        document_modules=[*plain.children(), _dense(2)],
    )
    return SentenceTransformer(modules=[router], device="cpu")


def _static_queries(folder: Path, *, first: bool = False) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    plain = SentenceTransformer(str(folder), device="cpu")
    static = StaticEmbedding(plain.tokenizer, embedding_dim=32)
    routes = {"document": [*plain.children()], "query": [static]}
    # Which comes first is the one whose tokenizer the model has for its own.
    ordered = dict(reversed(routes.items())) if first else routes
    router = Router(ordered, default_route="document")
    return SentenceTransformer(modules=[router], device="cpu")


def _lengths_by_role(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(folder), device="cpu")
    model[0].query_length, model[0].document_length = 8, 20
    return model


def _expanded_queries(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(folder), device="cpu")
    model[0].query_expansion = {"strategy": "fixed", "length": 16, "attend": True}
    return model


def _short_embeddings(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", truncate_dim=8)


def _without_prompt_in_pooling(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.set_pooling_include_prompt(False)
    return model


def _normalized(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize

    plain = SentenceTransformer(str(folder), device="cpu")
    return SentenceTransformer(modules=[*plain.children(), Normalize()], device="cpu")


def _max_pooling(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    plain: Any = SentenceTransformer(str(folder), device="cpu")
    return SentenceTransformer(modules=[plain[0], Pooling(32, "max")], device="cpu")


def _last_token(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    plain: Any = SentenceTransformer(str(folder), device="cpu")
    return SentenceTransformer(modules=[plain[0], Pooling(32, "lasttoken")], device="cpu")


def _processing_kwargs(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(folder), device="cpu")
    model[0].processing_kwargs = {"text": {"max_length": 10}}
    return model


def _lower_case(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(folder), device="cpu")
    model[0].do_lower_case = True
    return model


def _weighted_mean(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    plain: Any = SentenceTransformer(str(folder), device="cpu")
    return SentenceTransformer(modules=[plain[0], Pooling(32, "weightedmean")], device="cpu")


# Of each odd model whether a text may have another embedding in another role.
MODELS: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "routes of Dense": (_dense_routes, True),
    "routes that share a transformer": (_shared_transformer, True),
    "lengths by role": (_lengths_by_role, True),
    "expanded queries": (_expanded_queries, True),
    "truncated embeddings": (_short_embeddings, False),
    "no prompt in pooling": (_without_prompt_in_pooling, False),
    "normalised": (_normalized, False),
    "max pooling": (_max_pooling, False),
    "last token": (_last_token, False),
    "weighted mean": (_weighted_mean, False),
    "processing_kwargs": (_processing_kwargs, False),
    "lower case": (_lower_case, False),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_embeddings_are_those_of_encode_in_each_role(
    name: str, prompt: str, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    make, depends = MODELS[name]
    make(make_model("bert")).save_pretrained(str(tmp_path), create_model_card=False)
    encoder: Any = encoder_of(tmp_path)
    assert depends_on_role(encoder.model) == depends
    ways = {
        "query": encoder.model.encode_query,
        "document": encoder.model.encode_document,
        None: encoder.model.encode,
    }
    # Twice: what comes from the caches of tokens and embeddings is of the same role.
    for role in (*ROLES, *ROLES):
        found = encoder.embed(TEXTS, role, prompt)
        expected = ways[role](TEXTS, prompt=prompt, show_progress_bar=False)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < NOISE_FLOOR, role
    encoded = len(TEXTS) * (3 if depends else 1)
    assert encoder.counters.encoded_texts == encoded


def test_roles_that_differ_differ(make_model: Callable[[str], Path], tmp_path: Path) -> None:
    _dense_routes(make_model("bert")).save_pretrained(str(tmp_path), create_model_card=False)
    encoder = encoder_of(tmp_path)
    query, document, neither = (encoder.embed(TEXTS, role) for role in ROLES)
    assert np.abs(query - document).max() > 0.1
    assert np.array_equal(document, neither)


def test_lengths_are_those_of_the_role(make_model: Callable[[str], Path], tmp_path: Path) -> None:
    _lengths_by_role(make_model("bert")).save_pretrained(str(tmp_path), create_model_card=False)
    encoder = encoder_of(tmp_path)
    assert [encoder.lengths(TEXTS[2:3], "", role) for role in ROLES] == [[8], [20], [48]]
    encoder.embed(TEXTS[2:3], "document")
    assert [encoder.lengths(TEXTS[2:3], "", role) for role in ROLES] == [[8], [20], [48]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_lengths_by_role, r"\(query: 8, document: 20 tokens\).*query_length and document_length"),
        (_expanded_queries, r"\(query: 16 tokens\).*query_expansion\.length and document_length"),
    ],
)
def test_a_window_that_would_not_reach_all_texts_is_refused(
    make: Callable[[Path], Any], words: str, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """What is asked for is the window of all texts, and queries would be read at their own."""
    make(make_model("bert")).save_pretrained(str(tmp_path), create_model_card=False)
    model = load(locate(settings(tmp_path, window=32), offline=True), device="cpu", dtype="float32")
    with pytest.raises(RequestError, match=words):
        check_windows(model, "model.window=32", "local/m")
    check_windows(_dense_routes(make_model("bert")), "model.window=32", "local/m")


def test_roles_share_embeddings_where_the_model_knows_none(minilm_folder: Path) -> None:
    encoder = encoder_of(minilm_folder)
    for role in ROLES:
        encoder.embed(TEXTS, role)
    assert encoder.counters.encoded_texts == len(TEXTS)


def test_a_route_without_attention_is_refused(make_model: Callable[[str], Path]) -> None:
    model = _static_queries(make_model("bert"))
    check_routes(model, ["document", None], "local/m")
    with pytest.raises(RequestError, match="queries through StaticEmbedding, which has no attenti"):
        check_routes(model, ["document", "query"], "local/m")


def test_a_router_without_default_route_has_queries_and_documents(
    make_model: Callable[[str], Path],
) -> None:
    model = _dense_routes(make_model("bert"), default=None)
    check_routes(model, ["query", "document"], "local/m")
    with pytest.raises(RequestError, match="neither queries nor documents"):
        check_routes(model, ["query", None], "local/m")


@pytest.mark.parametrize("first", [False, True])
def test_a_run_refuses_a_model_whose_queries_have_no_attention(
    first: bool, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    _static_queries(make_model("bert"), first=first).save_pretrained(str(tmp_path / "m"))
    words = ["model=custom", f"model.name={tmp_path / 'm'}", "tasks=[DocstringReranking]"]
    words += [f"results_dir={tmp_path / 'r'}", "store=none", "engine.scoring=0", "tau=0.8"]
    asked = read({"custom": composed(*words, "offline=true")})
    outcome = carry_out(asked, Recorded())
    assert list(outcome.refused) == ["local/m"]
    assert "queries through StaticEmbedding, which has no attention" in outcome.refused["local/m"]
    assert not list((tmp_path / "r").rglob("DocstringReranking.json"))


def test_texts_that_become_messages_of_a_chat_are_said(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    def loaded(folder: Path) -> tuple[list[str], Any]:
        observer = Recorded()
        located = locate(settings(folder), offline=True)
        options = EngineSettings("cpu", None, 0, False)
        model, _ = load_for(located, options, dtype="float32", device="cpu", observer=observer)
        return observer.warnings, model

    folder = make_model("qwen3")
    assert loaded(folder)[0] == []
    inner = shutil.copytree(folder, tmp_path / "inner")
    template = "{% for m in messages %}[CLS] be kind {{ m.content }} [SEP]{% endfor %}"
    (inner / "chat_template.jinja").write_text(template, encoding="utf-8")
    # As whoever makes an embedder of a language model does, which states the chat in its files.
    transformer = Transformer(str(inner), max_seq_length=48)
    made = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    made.save(str(tmp_path / "chat"))
    warnings, model = loaded(tmp_path / "chat")
    (warning,) = warnings
    read = model.tokenizer.decode(model.preprocess(["a text"])["input_ids"][0])
    assert "be kind a text" in read
    assert ": “a text” is 6 tokens, not 4. If the model was trained on plain texts" in warning
    # One that an older version has saved, without a word of chats, reads texts as before.
    shutil.copy(inner / "chat_template.jinja", tmp_path / "chat" / "chat_template.jinja")
    path = tmp_path / "chat" / "sentence_bert_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    assert "message" in config.pop("modality_config")
    path.write_text(json.dumps(config), encoding="utf-8")
    assert loaded(tmp_path / "chat")[0] == []
