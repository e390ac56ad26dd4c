"""Prompts: mteb's own choice for the model and the task, and nothing under the paper's protocol."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from engines import NOISE_FLOOR, encoder_of
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType

from lcbench.encode.prompts import (
    check_room,
    describe_prompts,
    model_prompts,
    no_prompt,
    registry_prompts,
)
from lcbench.encode.registry import check_registry
from lcbench.errors import RequestError
from lcbench.hub.model_files import has_prompts
from lcbench.hub.models import ModelSettings
from lcbench.settings.schema import ProtocolSettings

BGE = "BAAI/bge-base-en-v1.5"
QUERY = "Represent this sentence for searching relevant passages: "
TASKS = ("SciFact", "STSBenchmark", "BrightBiologyRetrieval", "Banking77Classification")
KINDS = (PromptType.query, PromptType.document, None)


class Loader:
    """One of mteb's data loaders, as far as encoders look."""

    def __init__(self, texts: list[str]) -> None:
        self.dataset = Dataset.from_dict({"text": texts})

    def __iter__(self) -> Any:
        yield {"text": list(self.dataset["text"])}


@pytest.fixture
def model(make_model: Callable[[str], Path]) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(make_model("bert")), device="cpu")


def metadata(task: str) -> Any:
    return mteb.get_task(task).metadata


def test_bge_has_an_instruction_for_queries_alone(model: Any) -> None:
    prompt_of = registry_prompts(BGE, model)
    assert prompt_of(metadata("SciFact"), PromptType.query) == QUERY
    assert prompt_of(metadata("SciFact"), PromptType.document) == ""
    assert prompt_of(metadata("STSBenchmark"), None) == ""
    assert prompt_of(metadata("BrightBiologyRetrieval"), PromptType.query).startswith(
        "Represent this biology post"
    )
    assert no_prompt(metadata("SciFact"), PromptType.query) == ""


@pytest.mark.filterwarnings("ignore::UserWarning:mteb")
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("own", [{}, {"query": "ask: ", "passage": "text: "}])
@pytest.mark.parametrize("name", [BGE, "nobody/unknown"])
def test_embeddings_are_those_of_mtebs_wrapper(
    name: str, own: dict[str, str], task: str, make_model: Callable[[str], Path]
) -> None:
    encoder: Any = encoder_of(make_model("bert"))
    model = encoder.model
    model.prompts.update(own)
    encoder.engine.prompt_of = registry_prompts(name, model)
    loader: Any = Loader(["an apple a day", "keeps the doctor away", "an apple a day"])
    asked = {"task_metadata": metadata(task), "hf_split": "test", "hf_subset": "default"}
    ours = [encoder.encode(loader, prompt_type=kind, **asked) for kind in KINDS]
    prompts = None if name != BGE else mteb.get_model_meta(BGE).loader_kwargs["model_prompts"]
    theirs = SentenceTransformerEncoderWrapper(model, model_prompts=prompts)
    for kind, found in zip(KINDS, ours, strict=True):
        expected = theirs.encode(loader, prompt_type=kind, show_progress_bar=False, **asked)
        assert np.abs(found - expected).max() < NOISE_FLOOR
    # A prompt changes an embedding: equal texts under two prompts are two.
    assert encoder.counters.prompts == {
        kind.value if kind else "text": encoder.prompt_of(metadata(task), kind) for kind in KINDS
    }
    if encoder.counters.prompts["query"] != encoder.counters.prompts["document"]:
        assert np.abs(ours[0] - ours[1]).max() > 1e-3


def test_instructions_in_a_models_template(model: Any) -> None:
    prompt_of = registry_prompts("intfloat/multilingual-e5-large-instruct", _windowed(model, 514))
    asked = metadata("SciFact").prompt["query"]
    assert prompt_of(metadata("SciFact"), PromptType.query) == f"Instruct: {asked}\nQuery: "
    assert prompt_of(metadata("SciFact"), PromptType.document) == ""
    told = prompt_of(metadata("Banking77Classification"), None)
    assert told == f"Instruct: {metadata('Banking77Classification').prompt}\nQuery: "


def _windowed(model: Any, window: int) -> Any:
    model.max_seq_length = window
    return model


@pytest.mark.parametrize("name", ["nvidia/NV-Embed-v2", "WhereIsAI/UAE-Large-V1"])
def test_an_encoder_of_its_own_is_refused(model: Any, name: str) -> None:
    """Also one that encodes in another way than the wrapper that it is derived from."""
    with pytest.raises(RequestError, match=r"with code of its own .*protocol=model uses those"):
        registry_prompts(name, model)


def test_what_is_more_than_prompts_is_refused(model: Any) -> None:
    ends = next(
        meta.name
        for meta in mteb.get_model_metas()
        if meta.loader is SentenceTransformerEncoderWrapper
        and "add_eos_token" in meta.loader_kwargs
    )
    with pytest.raises(RequestError, match="add_eos_token"):
        registry_prompts(ends, model)


def test_mtebs_window_has_to_be_that_of_the_model(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = SimpleNamespace(
        loader=SentenceTransformerEncoderWrapper, loader_kwargs={"max_seq_length": 40}
    )
    monkeypatch.setattr(mteb, "get_model_meta", lambda name, fetch_from_hf: meta)
    with pytest.raises(RequestError, match=r"mteb reads 40 tokens .* model\.window=40"):
        registry_prompts("a/b", model)
    model.max_seq_length = 40
    assert registry_prompts("a/b", model)(metadata("SciFact"), PromptType.query) == ""


def test_what_is_more_than_prompts_is_refused_before_the_model_is_loaded() -> None:
    def model(name: str) -> Any:
        return SimpleNamespace(name=name, settings=SimpleNamespace(special_tokens=None))

    check_registry(model(BGE))
    check_registry(model("nobody/unknown"))
    with pytest.raises(RequestError, match="with code of its own"):
        check_registry(model("nvidia/NV-Embed-v2"))


def test_lengths_count_the_prompt(make_model: Callable[[str], Path]) -> None:
    encoder: Any = encoder_of(make_model("bert"))
    (plain,), (prompted,) = encoder.lengths(["apple"]), encoder.lengths(["apple"], "query: ")
    assert prompted == plain + 2
    encoder.embed(["apple"], "query", "query: ")
    assert encoder.lengths(["apple"], "query: ") == [prompted]
    assert encoder.lengths(["apple"]) == [plain]


def test_the_prompts_of_the_models_own_files(model: Any) -> None:
    model.prompts = {"query": "query: ", "document": "passage: ", "STS": "compare: "}
    prompt_of = model_prompts(model)
    assert prompt_of(metadata("SciFact"), PromptType.query) == "query: "
    assert prompt_of(metadata("SciFact"), PromptType.document) == "passage: "
    assert prompt_of(metadata("STSBenchmark"), None) == "compare: "
    assert prompt_of(metadata("Banking77Classification"), None) == ""


def test_a_line_says_which_prompts_are_used_and_which_are_not(model: Any) -> None:
    model.prompts = {"query": "", "document": ""}
    assert describe_prompts("none", "a/b", model) is None
    assert describe_prompts("model", "a/b", model) == "prompts: none, since a/b has none of its own"
    model.prompts = {"query": "query: ", "document": "passage: ", "empty": ""}
    assert describe_prompts("none", "a/b", model) == (
        "prompts: none (a/b has its own: document, query; protocol=model uses them)"
    )
    assert describe_prompts("model", "a/b", model) == (
        "prompts: a/b's own (document, query); protocol=paper uses none"
    )
    assert describe_prompts("registry", "a/b", model) == (
        "prompts: a/b's own (document, query), since mteb's registry does not have it"
    )
    name = "Qwen/Qwen3-Embedding-0.6B"
    assert describe_prompts("registry", name, model) == f"prompts: mteb's for {name}"
    model.prompts = {}
    assert describe_prompts("registry", "a/b", model) == (
        "prompts: none, since a/b is not in mteb's registry and has none of its own"
    )


@pytest.mark.parametrize(
    ("name", "prompts", "is_custom", "has_prompts", "resolved"),
    [
        ("auto", "auto", True, True, ("model", "model")),
        ("auto", "auto", True, False, ("paper", "none")),
        ("auto", "auto", False, True, ("paper", "none")),
        ("auto", "model", False, True, ("model", "model")),
        ("auto", "none", True, True, ("paper", "none")),
        ("auto", "registry", True, True, ("paper", "registry")),
        ("paper", "none", True, True, ("paper", "none")),
        ("mine", "auto", True, True, ("mine", "model")),
    ],
)
def test_a_custom_model_gets_the_prompts_of_its_files_where_no_protocol_is_named(
    name: str, prompts: str, is_custom: bool, has_prompts: bool, resolved: tuple[str, str]
) -> None:
    asked = ProtocolSettings(name, prompts, "float16", ("en",))
    model = ModelSettings("x", "a/b", "auto", None, None, None, False, is_custom=is_custom)
    of_model = asked.of(model, has_prompts=has_prompts)
    assert (of_model.name, of_model.prompts) == resolved
    assert (of_model.dtype, of_model.splits, of_model.subsets) == ("float16", "test", ("en",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"prompts": {"query": "ask: ", "document": ""}}, True),
        ({"prompts": {"query": "", "document": ""}}, False),
        ({"prompts": {}}, False),
        ({"prompts": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_prompts_are_found_in_a_models_files(
    content: dict[str, Any] | None, expected: bool, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(content))
    assert has_prompts(tmp_path) is expected


@pytest.mark.parametrize(
    ("prompt", "window", "words"),
    [
        # [CLS] search for : [SEP]
        ("search for: ", 5, r"\(SciFact\) is 5 tokens, and the prompt 'search for: ' takes 5,"),
        ("search for: ", 4, r"\(SciFact\) is 4 tokens, and the prompt 'search for: ' takes 5,"),
        ("search for: ", 6, None),
        ("", 3, None),
        (
            "",
            2,
            r"queries \(SciFact\) is 2 tokens, and an empty text takes 2, .*Raise model\.window\.$",
        ),
    ],
)
def test_a_prompt_that_fills_the_window_is_refused(
    prompt: str, window: int, words: str | None, model: Any
) -> None:
    def prompt_of(task: Any, kind: Any) -> str:
        return prompt if kind == PromptType.query else ""

    model.max_seq_length = window
    texts = [(metadata("SciFact"), PromptType.query)]
    if words is None:
        check_room("m", model, prompt_of, texts)
        one, other = model.encode(["river", "cat"], prompt=prompt)
        assert np.abs(one - other).max() > 0.1
        return
    with pytest.raises(RequestError, match=words) as refusal:
        check_room("m", model, prompt_of, texts)
    assert ("protocol.prompts=none" in str(refusal.value)) == bool(prompt)
    check_room("m", model, prompt_of, [(metadata("STSBenchmark"), None)] if prompt else [])


def test_a_prompt_that_fills_the_window_of_its_role_is_refused(model: Any) -> None:
    model[0].query_length = 4
    texts = [(metadata("SciFact"), kind) for kind in PromptType]
    words = (
        r"queries \(SciFact\) is 4 .*Raise query_length in its sentence_bert_config\.json, or use"
    )
    with pytest.raises(RequestError, match=words):
        check_room("m", model, lambda *_: "search for: ", texts)
    check_room("m", model, no_prompt, texts)


def test_a_prompt_that_fills_the_length_of_expanded_queries_is_refused(model: Any) -> None:
    model[0].query_expansion = {"strategy": "fixed", "length": 4}
    texts = [(metadata("SciFact"), kind) for kind in PromptType]
    with pytest.raises(RequestError, match=r"is 4 tokens.*Raise query_expansion\.length in its"):
        check_room("m", model, lambda *_: "search for: ", texts)
    check_room("m", model, no_prompt, texts)
