"""Prompts: mteb's own choice for the model and the task, and nothing under the paper's protocol."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType

from engines import NOISE_FLOOR, encoder_of
from lcbench.encode.prompts import (
    describe_prompts,
    model_prompts,
    no_prompt,
    registry_prompts,
)
from lcbench.errors import RequestError

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


def test_what_is_more_than_prompts_is_refused(model: Any) -> None:
    with pytest.raises(RequestError, match="with code of its own"):
        registry_prompts("Qwen/Qwen3-Embedding-0.6B", model)
    longer = next(
        meta.name
        for meta in mteb.get_model_metas()
        if meta.loader is SentenceTransformerEncoderWrapper
        and "add_eos_token" in meta.loader_kwargs
    )
    window = mteb.get_model_meta(longer).loader_kwargs.get("max_seq_length")
    if window is not None:
        with pytest.raises(RequestError, match=f"model.window={window}"):
            registry_prompts(longer, model)
        model.max_seq_length = window
    with pytest.raises(RequestError, match="add_eos_token"):
        registry_prompts(longer, model)


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
    assert describe_prompts("model", "a/b", model) == "prompts: a/b's own (document, query)"
    assert describe_prompts("registry", "a/b", model) == (
        "prompts: mteb's for a/b, or its own if mteb's registry does not have it"
    )
