"""The settings of shipped models: their shapes, and their names on the hub."""

from dataclasses import replace
from pathlib import Path

import mteb
import pytest
import transformers
from composed import composed
from embedders import TWINS, write_twin

from lcbench.errors import RequestError
from lcbench.hub.layers import layer_of
from lcbench.hub.models import ModelSettings, locate, shipped_models
from lcbench.plan.layout import protocol_of
from lcbench.settings import read
from lcbench.settings.schema import Settings
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.suites import resolve

OF_THE_HUB = [name for name in shipped_models() if name != "minilm"]


def asked(*words: str) -> Settings:
    """Return the settings of a request as the command line has it."""
    config = composed(*words)
    name = next(one for one in words if one.startswith("model=")).removeprefix("model=")
    return read.read({name: config})


def by_config(config: str, *words: str) -> Settings:
    return asked(f"model={config}", *words)


def by_name(config: str, *words: str) -> Settings:
    return asked("model=custom", f"model.name={shipped_models()[config]}", *words)


@pytest.mark.parametrize("config", OF_THE_HUB)
def test_a_stated_shape_comes_to_the_stated_parameters(config: str) -> None:
    (model,) = by_config(config).models
    known = model.shape
    assert known is not None
    assert known.layer is not None
    assert known.parameters is not None
    in_layers = known.layers * known.layer.weights
    # Positions, biases, norms and dense layers at the end are few.
    try:
        meta = mteb.get_model_meta(model.name, fetch_from_hf=False)
    except KeyError:
        assert 0.6 < in_layers / known.parameters < 0.8
        return
    assert meta.revision == model.revision
    assert known.parameters == pytest.approx(meta.n_parameters, rel=0.005)
    if meta.n_embedding_parameters is not None:
        assert in_layers + meta.n_embedding_parameters == pytest.approx(known.parameters, rel=0.04)


@pytest.mark.parametrize("config", TWINS)
def test_a_stated_layer_is_of_the_kind_of_the_models_twin(config: str) -> None:
    (model,) = by_config(config).models
    kind, values = TWINS[config].config
    files = {**getattr(transformers, kind)(**values).to_dict(), **TWINS[config].extra}
    twin = layer_of(files)
    assert model.shape is not None
    stated = model.shape.layer
    assert stated is not None
    assert twin is not None
    assert (stated.causal, stated.whole) == (twin.causal, twin.whole)
    # A gate is a second branch and a third matrix.
    branches = twin.inner // values["intermediate_size"]
    feed_forward = (branches + 1) * model.shape.hidden * stated.inner // branches
    square = model.shape.hidden * stated.attended
    # Queries and output are as wide as the heads together; keys and values may be narrower.
    assert 2 * square < stated.weights - feed_forward <= 4 * square


@pytest.mark.parametrize("config", OF_THE_HUB)
@pytest.mark.parametrize("listed", [False, True])
def test_a_name_on_the_hub_is_the_shipped_model(config: str, listed: bool) -> None:
    (wanted,) = by_config(config).models
    name = wanted.name
    words = ("model=custom", f"model.name={name}")
    # In a list of models the name itself is what a model is called by.
    (found,) = read.read({name if listed else "custom": composed(*words)}).models
    assert replace(found, config=wanted.config, source=wanted.source) == wanted
    assert found.shape is not None
    assert wanted.shape is not None
    assert found.shape.layer == wanted.shape.layer


def test_what_is_asked_for_stays() -> None:
    words = ("model.revision=main", "model.special_tokens=[eos]", "model.window=512")
    (found,) = by_name("e5-mistral", *words).models
    (wanted,) = by_config("e5-mistral", *words).models
    assert (found.revision, found.special_tokens, found.window) == ("main", ("eos",), 512)
    assert replace(found, config=wanted.config, source=wanted.source) == wanted


def test_other_models_are_as_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*words: str) -> ModelSettings:
        return asked("model=custom", *words).models[0]

    for words in (
        ("model.name=nobody/here",),
        # A package's copy is another model: it is identified by its files.
        ("model.name=sentence-transformers/all-MiniLM-L6-v2",),
        (f"model.name={shipped_models()['bge']}", "model.source=folder"),
    ):
        model = found(*words)
        assert (model.revision, model.shape, model.is_custom) == (None, None, True)
    # A folder of that name comes first.
    monkeypatch.chdir(tmp_path)
    Path(shipped_models()["bge"]).mkdir(parents=True)
    model = found(f"model.name={shipped_models()['bge']}")
    assert (model.revision, model.shape, model.is_custom) == (None, None, True)
    # So is a config of the user's own.
    values = composed("model=custom", f"model.name={shipped_models()['gist']}")
    (model,) = read.read({"mine": values}).models
    assert (model.revision, model.shape, model.is_custom) == (None, None, True)


@pytest.mark.parametrize("config", ["qwen3-0.6b", "e5-mistral"])
def test_both_names_have_the_same_cells(config: str, tmp_path: Path, minilm_folder: Path) -> None:
    """By default too: a shipped model has no prompts then, and another has those of its files."""
    write_twin(config, tmp_path / shipped_models()[config], minilm_folder)
    for words in ((), ("protocol=leaderboard",)):
        keys = set()
        for settings in (by_config(config, *words), by_name(config, *words)):
            (model,) = settings.models
            located = locate(model, offline=True, mirror=tmp_path)
            part = resolve(TaskChoice("STS13"), "test", None, settings.sources)
            found = protocol_of(settings, part, model, located, located.shape.window)
            keys.add((located.name, located.revision, found.key))
        assert len(keys) == 1


def test_dimensions_that_the_model_was_not_trained_for(tmp_path: Path, minilm_folder: Path) -> None:
    config = "embeddinggemma"
    write_twin(config, tmp_path / shipped_models()[config], minilm_folder)
    (model,) = by_name(config, "model.dimensions=30").models
    with pytest.raises(RequestError, match=r"model\.dimensions=30: google/embeddinggemma-300m was"):
        locate(model, offline=True, mirror=tmp_path)
