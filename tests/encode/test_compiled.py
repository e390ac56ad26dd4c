"""A compiled model: compiled once for all temperatures, which are inputs of the compiled code."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import MADE, engine_of, memory, settings
from numpy.typing import NDArray

from lcbench.encode.engine import Engine, Identity
from lcbench.encode.forward import Forward
from lcbench.encode.load import load
from lcbench.encode.unpadded import use_unpadded
from lcbench.errors import InjectionError
from lcbench.hub.models import locate
from lcbench.repair.gain import Gain
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import BASELINE, parse

TEXTS = ["a text to embed", "and one more", "attention divides logits " * 5, "long " * 60]
SEVEN = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
# The queries are divided instead of the scale: rounding in float32.
ROUNDING = 2e-6


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Count what torch compiles, without the compiler itself."""
    made: list[Any] = []

    def backend(graph: Any, example_inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return made


def embeddings(engine: Engine, tau: Any, texts: list[str]) -> NDArray[np.float32]:

    return engine.embed(Repair(parse(tau)), texts, None, "").embeddings


def apart(left: NDArray[Any], right: NDArray[Any]) -> float:
    return float(np.abs(left - right).max() / np.abs(right).max())


def test_seven_temperatures_are_compiled_once(
    make_model: Callable[[str], Path], compilations: list[Any]
) -> None:
    options: dict[str, Any] = {"lanes": 1, "batch_tokens": 4096}
    folder = make_model("bert")
    plain, _ = engine_of(folder, **options)
    engine, _ = engine_of(folder, compiled=True, **options)
    texts = [f"{text} {number}" for text in TEXTS for number in range(3)]
    # Several texts a batch: torch compiles dimensions of 1 apart.
    found = {}
    for tau in SEVEN:
        found[tau] = embeddings(engine, tau, texts)
        assert apart(found[tau], embeddings(plain, tau, texts)) < ROUNDING
        if tau == 1.0:
            assert np.array_equal(found[tau], embeddings(plain, tau, texts))
    assert len(compilations) == 1
    # And each layer's own temperature is an input as well.
    layers = {"layers": {0: 1.0, 1: 0.7}}
    found["layers"] = embeddings(engine, layers, texts)
    assert apart(found["layers"], embeddings(plain, layers, texts)) < ROUNDING
    assert len(compilations) == 1
    values = list(found.values())
    assert min(apart(one, values[0]) for one in values[1:]) > 1e-3
    engine.close()


def test_temperatures_by_length_are_compiled_once_too(
    make_model: Callable[[str], Path], compilations: list[Any]
) -> None:
    options: dict[str, Any] = {"lanes": 1, "batch_tokens": 4096}
    folder = make_model("bert")
    plain, _ = engine_of(folder, **options)
    engine, _ = engine_of(folder, compiled=True, **options)
    texts = [f"{text} {number}" for text in TEXTS for number in range(3)]
    for low in (0.9, 0.8, 0.7):
        tau = {"length": {0: 1.0, 12: low}}
        found = embeddings(engine, tau, texts)
        assert apart(found, embeddings(plain, tau, texts)) < ROUNDING
    assert len(compilations) == 1
    engine.close()


def test_without_padding_temperatures_compile_nothing_anew(
    make_model: Callable[[str], Path], compilations: list[Any]
) -> None:
    options: dict[str, Any] = {"lanes": 1, "batch_tokens": 4096}
    folder = make_model("bert")
    plain, _ = engine_of(folder, **options)
    located = locate(settings(folder), offline=True)
    model = load(located, device="cpu", dtype="float32")
    assert use_unpadded(model) is None
    forward = Forward(model, compiled=True, **options)
    engine = Engine(forward, memory(), Identity("a/b", "c", 48, "float32"))
    MADE.append(engine)
    texts = [f"{text} {number}" for text in TEXTS for number in range(3)]
    counts = []
    for tau in SEVEN[:4]:
        found = embeddings(engine, tau, texts)
        assert apart(found, embeddings(plain, tau, texts)) < ROUNDING
        counts.append(len(compilations))
    # A CPU computes the attention of each text by itself, between what is compiled.
    assert len(set(counts)) == 1
    engine.close()


def test_what_has_no_attention_is_compiled_at_the_baseline(
    make_model: Callable[[str], Path],
    compilations: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise InjectionError("no attention")

    folder = make_model("bert")
    monkeypatch.setattr("lcbench.encode.replica.Injection", refuse)
    engine, _ = engine_of(folder, compiled=True, lanes=1)
    plain, _ = engine_of(folder, lanes=1)
    assert apart(embeddings(engine, 1.0, TEXTS), embeddings(plain, 1.0, TEXTS)) < ROUNDING
    assert compilations
    with pytest.raises(InjectionError):
        embeddings(engine, 0.8, TEXTS)
    engine.close()


@pytest.mark.parametrize("architecture", ["bert", "t5", "mpnet"])
def test_a_temperature_is_changed_with_proof_and_undone(
    architecture: str, make_model: Callable[[str], Path]
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(make_model(architecture)), device="cpu")
    before = model.encode(TEXTS)
    injection = Injection(model, BASELINE, as_input=True)
    # τ = 1 as an input divides by 1, which changes no bit.
    assert np.array_equal(model.encode(TEXTS), before)
    for tau in (0.7, {"layers": {0: 1.0, 1: 0.6}}, 0.9):
        assert injection.takes(parse(tau))
        injection.change(parse(tau))
        changed = model.encode(TEXTS)
        injection.check()
        expected = SentenceTransformer(str(make_model(architecture)), device="cpu")
        with Injection(expected, parse(tau)) as other:
            assert apart(changed, expected.encode(TEXTS)) < ROUNDING
            assert other.proof.tau == injection.proof.tau
        assert apart(changed, before) > 1e-3
    assert not injection.takes(parse({"length": {0: 1.0, 12: 0.8}}))
    injection.remove()
    assert np.array_equal(model.encode(TEXTS), before)


def test_gains_are_compiled_anew(
    make_model: Callable[[str], Path], compilations: list[Any]
) -> None:
    """Dynamo does not look whether hooks were added since."""
    folder = make_model("bert")
    engine, _ = engine_of(folder, compiled=True)
    plain, _ = engine_of(folder)
    for gain in (None, Gain(layernorm=1.3), Gain(ffn=0.5), None):
        repair = Repair(gain=gain)
        found = engine.embed(repair, TEXTS, None, "").embeddings
        expected = plain.embed(repair, TEXTS, None, "").embeddings
        assert apart(found, expected) < ROUNDING
    assert compilations


def test_a_change_that_cannot_be_proven_restores_the_model(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model("bert")
    engine, (_, model) = engine_of(folder, compiled=True, lanes=1)
    forward: Forward = engine._forward
    replica = forward._replicas[0]
    injection = replica._injection
    assert injection is not None

    def refuse(started: float) -> Any:
        raise InjectionError("a layer does not obey")

    monkeypatch.setattr(injection, "_prove", refuse)
    with pytest.raises(InjectionError, match="does not obey"):
        forward.use(Repair(parse(0.8)))
    assert replica.repair == NO_REPAIR
    plain, _ = engine_of(folder)
    assert "forward" not in vars(model[0].auto_model)
    assert np.array_equal(model.encode(TEXTS), plain._forward._model.encode(TEXTS))
