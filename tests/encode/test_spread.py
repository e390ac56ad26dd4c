"""One copy of a model over several GPUs: where its layers are, what it computes, what is refused.

A CPU stands in for each GPU: accelerate's hooks move the states of each layer all the same.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from composed import read
from engines import NOISE_FLOOR, encoder_of, settings

from lcbench.encode import load as module
from lcbench.encode.load import load
from lcbench.encode.options import EngineSettings
from lcbench.errors import RequestError
from lcbench.hub.models import locate
from lcbench.run import devices
from lcbench.run import engines as of_process
from lcbench.run.devices import Share, shares_of
from lcbench.run.engines import devices_of_process
from lcbench.tempscale.transformer import find_transformer

SPREAD = EngineSettings("auto", None, 0, False, None, "spread")
TEXTS = ["a text", "the river banks " * 12, "pears", "an apple a day keeps the doctor away"]


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "qwen3", "t5"])
@pytest.mark.parametrize("tau", [1.0, 0.6, {"length": {"logn": 8}}, {"layers": {0: 0.5}}])
def test_embeddings_are_those_of_one_device(
    architecture: str,
    tau: Any,
    make_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_model(architecture)
    expected = encoder_of(folder, tau).vectors(TEXTS, "document", "")
    moved: list[str] = []

    def dispatched(*args: Any, **keys: Any) -> Any:
        model = load(*args, **keys)
        transformer: Any = find_transformer(model)
        names = {name: "cpu" for name, one in transformer.named_children()}
        # Else nothing is done for layers that are all on a CPU.
        accelerate.dispatch_model(transformer, names, main_device="cpu", force_hooks=True)
        hook = type(next(transformer.children())._hf_hook)
        before = hook.pre_forward

        def pre_forward(self: Any, one: Any, *inputs: Any, **named: Any) -> Any:
            moved.append(type(one).__name__)
            return before(self, one, *inputs, **named)

        monkeypatch.setattr(hook, "pre_forward", pre_forward)
        return model

    monkeypatch.setattr("engines.load", dispatched)
    found = encoder_of(folder, tau).vectors(TEXTS, "document", "")
    assert len(set(moved)) > 1
    assert np.abs(found - expected).max() < NOISE_FLOOR


def test_accelerate_decides_where_layers_are(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentence_transformers

    made = sentence_transformers.SentenceTransformer
    asked: list[tuple[Any, Any]] = []

    def seen(*args: Any, **keys: Any) -> Any:
        asked.append((keys["device"], keys["model_kwargs"].get("device_map")))
        return made(*args, **keys)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", seen)
    located = locate(settings(make_model("bert")), offline=True)
    plain = load(located, device="cpu", dtype="float32")
    spread = load(located, device="cpu", dtype="float32", spread=True)
    assert asked == [("cpu", None), (None, "auto")]
    # There is one device here.
    assert np.array_equal(spread.encode(TEXTS), plain.encode(TEXTS))


def test_layers_left_on_disk_are_refused(
    make_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentence_transformers

    made = sentence_transformers.SentenceTransformer

    def offloading(*args: Any, **keys: Any) -> Any:
        keys["model_kwargs"] |= {
            "device_map": {"embeddings": "cpu", "encoder": "disk", "pooler": "disk"},
            "offload_folder": str(tmp_path),
        }
        return made(*args, **keys)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", offloading)
    located = locate(settings(make_model("bert")), offline=True)
    with pytest.raises(RequestError, match="does not fit into the memory of all GPUs together"):
        module.load(located, device="cpu", dtype="float32", spread=True)


def test_there_is_one_process_with_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    every = ["cuda:0", "cuda:1"]
    monkeypatch.setattr(of_process, "devices_of", lambda asked: every)
    monkeypatch.setattr(devices, "devices_of", lambda asked: every)
    assert shares_of(SPREAD) == [Share(SPREAD, {})]
    assert devices_of_process(SPREAD) == ["cuda:0"]
    assert devices_of_process(replace(SPREAD, devices=None)) == every
    monkeypatch.setattr(of_process, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"needs accelerate: pip install 'lcbench\[spread\]'"):
        devices_of_process(SPREAD)
    for one in (replace(SPREAD, device="cuda:1"), replace(SPREAD, device="cpu")):
        with pytest.raises(RequestError, match=r"engine\.devices=spread needs the GPUs of this"):
            shares_of(one)


def test_without_gpus_it_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there are some")
    with pytest.raises(RequestError, match=r"engine\.devices=spread needs .* means cpu here"):
        devices_of_process(SPREAD)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compile", "true"),
        ("fuse_qkv", "true"),
        ("graphs", "true"),
        ("fp32", "fp16x3"),
        ("attention", "varlen"),
    ],
)
def test_what_is_on_one_device_is_refused_beside_it(key: str, value: str) -> None:
    assert read().engine.devices is None
    with pytest.raises(RequestError, match=rf"devices=spread and engine\.{key}={value}: "):
        read("engine.devices=spread", f"engine.{key}={value}")
    assert read("engine.devices=spread", "engine.attention=sdpa").engine.is_spread
