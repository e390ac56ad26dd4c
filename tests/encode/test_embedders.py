"""The shipped embedders are loaded, prompted, pooled and cut as mteb's own loaders do it.

Their twins have the form of the repositories and random weights (`embedders`); mteb's loader of the
model and lcbench read the same folder.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from composed import composed
from datasets import Dataset
from embedders import TWINS, WINDOW, write_twin
from engines import MADE, memory
from mteb.types import PromptType
from observers import Recorded
from omegaconf import OmegaConf

from lcbench.encode.encoder import Encoder
from lcbench.encode.load import load
from lcbench.encode.registry import check_registry
from lcbench.errors import RequestError
from lcbench.hub.models import LocatedModel, ModelSettings, locate
from lcbench.hub.truncation import Trained
from lcbench.repair.repair import NO_REPAIR
from lcbench.results.provenance import model_facts, model_meta
from lcbench.run.engines import engine_of, load_for, prompts_of
from lcbench.settings.models import model_settings
from lcbench.settings.read import read
from lcbench.system.observer import Observer
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import parse

# One of each type, and one with an instruction of its own; the others in the long run.
TASKS = ("Banking77Classification", "SciFact")
MORE_TASKS = (
    *("STSBenchmark", "AskUbuntuDupQuestions", "TwentyNewsgroupsClustering.v2"),
    *("SprintDuplicateQuestions", "SummEvalSummarization.v2", "BrightBiologyRetrieval"),
)
KINDS = (PromptType.query, PromptType.document, None)
TEXTS = [
    "the temperature of attention",
    "River banks",
    "a query, and the text of a passage: naïve 漢字 <s> ",
    "search",
    # They fill the window exactly, nearly and by far.
    *(" ".join(["the"] * count) for count in (WINDOW - 2, WINDOW - 1)),
    "the river banks " * 100,
]


class Loader:
    """One of mteb's data loaders, as far as encoders look."""

    def __init__(self, texts: list[str]) -> None:
        self.dataset = Dataset.from_dict({"text": texts})

    def __iter__(self) -> Any:
        yield {"text": list(self.dataset["text"])}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A mirror with a twin of every model, under its name."""
    folder = tmp_path_factory.mktemp("mirror")
    for config in TWINS:
        write_twin(config, folder / asked(config).name, minilm_folder)
    return folder


def asked(config: str, **changes: Any) -> ModelSettings:
    values = composed(f"model={config}").model
    return replace(model_settings(config, OmegaConf.to_container(values)), **changes)  # type: ignore[arg-type]


def located(mirror: Path, config: str, **changes: Any) -> LocatedModel:
    return locate(asked(config, **changes), offline=True, mirror=mirror)


def ours(model: LocatedModel, prompts: str = "registry", dtype: str = "float32") -> Any:
    """Return lcbench's encoder of a model, and the loaded model."""
    options = read({"m": composed()}).engine
    loaded, notes = load_for(
        model, options, dtype=dtype, device="cpu", observer=Observer(), prompts=prompts
    )
    facts = model_facts(model, loaded)
    engine = engine_of(
        model,
        loaded,
        facts,
        options,
        memory(),
        dtype=dtype,
        devices=["cpu"],
        prompt_of=prompts_of(model, loaded, prompts, Observer()),
        on_progress=lambda texts, tokens: None,
        cores_left=lambda: 1,
        notes=notes,
    )
    MADE.append(engine)
    return Encoder(engine.at(NO_REPAIR), model_meta(facts, NO_REPAIR)), loaded


def theirs(mirror: Path, config: str, dimensions: int | None = None) -> Any:
    """Return what mteb's loader of a model makes of its twin, in float32 and without other code."""
    name = asked(config).name
    meta = mteb.get_model_meta(name, fetch_from_hf=False)
    options = {**meta.loader_kwargs, "model_kwargs": {"dtype": torch.float32}}
    options.pop("trust_remote_code", None)
    if dimensions is not None:
        options["embed_dim"] = dimensions
    loaded: Any = meta.loader(str(mirror / name), revision=None, device="cpu", **options)
    # Nomic's wrapper goes by the name.
    loaded.model_name = name
    return loaded


def largest_difference(encoder: Any, reference: Any, task: str, texts: list[str] = TEXTS) -> float:
    metadata = mteb.get_task(task).metadata
    given = {"task_metadata": metadata, "hf_split": "test", "hf_subset": "default"}
    worst = 0.0
    for kind in KINDS:
        found = encoder.encode(Loader(texts), prompt_type=kind, **given)
        expected = reference.encode(
            Loader(texts), prompt_type=kind, show_progress_bar=False, batch_size=4, **given
        )
        expected = np.asarray(expected)
        assert found.shape == expected.shape
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "tasks", [TASKS, pytest.param(MORE_TASKS, marks=pytest.mark.exhaustive)], ids=["two", "more"]
)
@pytest.mark.parametrize("config", TWINS)
def test_embeddings_are_those_of_mtebs_loader(
    mirror: Path, config: str, tasks: tuple[str, ...]
) -> None:
    model = located(mirror, config)
    check_registry(model)
    encoder, loaded = ours(model)
    reference = theirs(mirror, config)
    assert loaded.max_seq_length == reference.model.max_seq_length == WINDOW
    for task in tasks:
        assert largest_difference(encoder, reference, task) < 1e-6, task
    # Of the last task, a search: a query is not what a document is, under mteb's prompts.
    assert encoder.counters.prompts["query"] != encoder.counters.prompts["document"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", ["qwen3-0.6b", "embeddinggemma", "nomic", "modernbert-embed"])
def test_fewer_dimensions_are_those_of_mtebs_loader(mirror: Path, config: str) -> None:
    model = located(mirror, config, dimensions=12, trained=Trained((12,)))
    assert (model.dimensions, model.shape.dimensions, model.untrained) == (12, 12, False)
    encoder, loaded = ours(model)
    assert loaded.get_embedding_dimension() == 12
    reference = theirs(mirror, config, 12)
    assert largest_difference(encoder, reference, "SciFact") < 1e-6


def test_a_copy_that_is_named_as_a_folder_is_none_of_mtebs_models(mirror: Path) -> None:
    """Without the model's name there are no instructions, whatever its files are."""
    by_name = located(mirror, "me5-instruct")
    of_folder = asked("me5-instruct", name=str(mirror / by_name.name), source="folder")
    by_folder = locate(replace(of_folder, revision=None), offline=True)
    loaded = load(by_name, device="cpu", dtype="float32")
    task = mteb.get_task("SciFact").metadata
    given, said, warned = [], [], []
    for model in (by_name, by_folder):
        observer = Recorded()
        prompt_of = prompts_of(model, loaded, "registry", observer)
        given.append(prompt_of(task, PromptType.query))
        said += observer.said
        warned.append([one.partition(":")[0] for one in observer.warnings])
    assert given[0].startswith("Instruct: ")
    assert given[1] == ""
    assert said == [
        "prompts: mteb's for intfloat/multilingual-e5-large-instruct",
        f"prompts: none, since {by_folder.name} is not in mteb's registry and has none of its own",
    ]
    assert warned == [[], ["protocol.prompts=registry"]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("config", ["qwen3-0.6b", "e5-mistral", "gte-qwen2-1.5b"])
def test_the_side_of_the_padding_changes_nothing(
    mirror: Path, tmp_path: Path, minilm_folder: Path, config: str, side: str
) -> None:
    folder = write_twin(config, tmp_path / asked(config).name, minilm_folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": side}))
    encoder, loaded = ours(located(tmp_path, config))
    assert loaded.tokenizer.padding_side == side
    assert largest_difference(encoder, theirs(mirror, config), "SciFact") < 1e-6


def test_the_last_token_is_the_one_that_is_pooled(mirror: Path) -> None:
    """Without its end of text an embedding is that of the last word."""
    for config, ends in (
        ("qwen3-0.6b", "<|endoftext|>"),
        ("e5-mistral", "</s>"),
        ("gte-qwen2-1.5b", "<|endoftext|>"),
    ):
        encoder, loaded = ours(located(mirror, config), prompts="none")
        for text in ("the river", "the river " * WINDOW):
            (tokens,) = encoder._backend._engine._forward.tokenizer_for(None).tokenize([text])
            assert loaded.tokenizer.convert_ids_to_tokens(int(tokens.ids[-1])) == ends
            assert tokens.length <= WINDOW


@pytest.mark.parametrize(("config", "most"), [("gte-qwen2-1.5b", 0.04), ("nomic", 0.02)])
def test_bfloat16_changes_cosines_by_little(mirror: Path, config: str, most: float) -> None:
    """More of a last token than of a mean: docs/models.md has the largest of all twins."""
    cosines = []
    for dtype in ("float32", "bfloat16"):
        found = load(located(mirror, config), device="cpu", dtype=dtype).encode(TEXTS)
        scaled = found / np.linalg.norm(found, axis=1, keepdims=True)
        cosines.append(scaled @ scaled.T)
    assert 1e-4 < np.abs(cosines[0] - cosines[1]).max() < most


@pytest.mark.parametrize("config", ["e5-mistral", "gte-qwen2-1.5b"])
def test_special_tokens_that_would_be_dropped_are_asked_for(mirror: Path, config: str) -> None:
    model = located(mirror, config, special_tokens=None)
    with pytest.raises(RequestError, match=r"mteb adds .*eos.*model\.special_tokens=\["):
        check_registry(model)
    with pytest.raises(RequestError, match=r"states .*add_eos_token.*model\.special_tokens=\["):
        load(model, device="cpu", dtype="float32")
    bare = load(located(mirror, config, special_tokens=()), device="cpu", dtype="float32")
    assert len(bare.tokenizer("")["input_ids"]) == 0


def test_special_tokens_of_mteb_are_checked_wherever_a_model_is_loaded(mirror: Path) -> None:
    options = read({"m": composed()}).engine
    added = located(mirror, "e5-mistral", special_tokens=("eos",))
    other = located(mirror, "qwen3-0.6b", special_tokens=("eos",))
    for model, words in ((added, r"mteb adds bos and eos"), (other, r"=\[eos\]: mteb leaves Qwen")):
        with pytest.raises(RequestError, match=words):
            check_registry(model)
        with pytest.raises(RequestError, match=words):
            load_for(
                model,
                options,
                dtype="float32",
                device="cpu",
                observer=Observer(),
                prompts="registry",
            )


def test_special_tokens_that_the_files_state_may_be_asked_for(
    tmp_path: Path, minilm_folder: Path
) -> None:
    """Of a model like E5-Mistral for which mteb's loader leaves them to transformers."""
    name = "Linq-AI-Research/Linq-Embed-Mistral"
    write_twin("e5-mistral", tmp_path / name, minilm_folder)
    for tokens in (("bos", "eos"), ("bos",)):
        model = located(tmp_path, "e5-mistral", name=name, revision=None, special_tokens=tokens)
        check_registry(model)
        loaded = load(model, device="cpu", dtype="float32")
        assert len(loaded.tokenizer("")["input_ids"]) == len(tokens)
    bare = located(tmp_path, "e5-mistral", name=name, revision=None, special_tokens=())
    with pytest.raises(RequestError, match="mteb leaves"):
        check_registry(bare)


def test_a_token_that_the_tokenizer_lacks_is_refused(mirror: Path) -> None:
    model = located(mirror, "qwen3-0.6b", special_tokens=("bos", "eos"))
    with pytest.raises(RequestError, match=r"Qwen3-Embedding-0\.6B has no bos token"):
        load(model, device="cpu", dtype="float32")


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path, minilm_folder: Path) -> None:
    folder = write_twin("qwen3-0.6b", tmp_path / asked("qwen3-0.6b").name, minilm_folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": None}))
    with pytest.raises(RequestError, match=r"no padding token.*\"pad_token\""):
        load(located(tmp_path, "qwen3-0.6b"), device="cpu", dtype="float32")


@pytest.mark.parametrize("policy", [0.7, {"length": {"logn": 8}}])
@pytest.mark.parametrize("config", [one for one in TWINS if one not in ("qwen3-4b", "qwen3-8b")])
def test_a_temperature_is_exact(mirror: Path, config: str, policy: Any) -> None:
    """The proof compares every layer with the formula in float64."""
    loaded = load(located(mirror, config), device="cpu", dtype="float32")
    plain = loaded.encode(TEXTS)
    with Injection(loaded, parse(policy)) as injected:
        assert len(injected.proof.layers) == 2
        assert injected.proof.largest_error < 1e-5
        changed = loaded.encode(TEXTS)
    assert np.abs(changed - plain).max() > 1e-3
    assert np.array_equal(loaded.encode(TEXTS), plain)
