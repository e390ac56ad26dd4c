"""The memory of a model is said before it is taken, and one that does not fit is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from composed import composed

import lcbench
from lcbench.encode import budget
from lcbench.errors import LcbenchError, RequestError
from lcbench.hub.layers import Layer
from lcbench.hub.models import Dimensions
from lcbench.plan import memory as module
from lcbench.plan.estimate import describe
from lcbench.plan.machine import Machine
from lcbench.plan.memory import check_memory, memory_of
from lcbench.repair.repair import Repair
from lcbench.settings import read
from lcbench.settings.schema import LaunchSettings
from lcbench.system.cards import CARDS, MEMORY

CPU = Machine("a processor", "cpu", 2, "float32")
GPU = Machine("a GPU", "cuda", 8, "bfloat16")
# Qwen3-Embedding-8B.
LARGE = Dimensions(
    36, 4096, 32768, Layer(193_000_000, 4096, 2 * 12288, True, 32, False), 7_600_000_000
)


def test_weights_and_batches_grow_with_what_they_are_of() -> None:
    on_cpu, on_gpu = memory_of(LARGE, CPU), memory_of(LARGE, GPU, card="h100")
    assert on_cpu is not None
    assert on_gpu is not None
    # No copy of so large weights is kept.
    assert on_cpu.weights == pytest.approx(7.6e9 * 4 / 2**30)
    assert on_gpu.weights == pytest.approx(on_cpu.weights / 2)
    assert on_gpu.available == 80
    assert on_gpu.tokens == 32768
    short = memory_of(replace(LARGE, window=512), CPU)
    assert short is not None
    assert short.batches < on_cpu.batches / 4
    whole = replace(LARGE, layer=replace(LARGE.layer, whole=True))  # type: ignore[arg-type]
    of_whole = memory_of(whole, CPU)
    assert of_whole is not None
    # Logits of 32 heads.
    assert of_whole.batches - on_cpu.batches >= 2 * 32 * 32768**2 * 4 / 2**30
    small = memory_of(
        Dimensions(6, 384, 256, Layer(12 * 384**2, 384, 1536, False, 12, False), 23_000_000), CPU
    )
    assert small is not None
    assert 0.1 < small.weights < 0.2
    assert small.needed < 1.5
    assert memory_of(Dimensions(6, 384, 256), CPU) is None


@pytest.mark.parametrize("window", [512, 40960])
@pytest.mark.parametrize("hidden", [768, 4096])
@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_batches_are_as_large_as_the_engine_makes_them(
    machine: Machine, hidden: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_token = (8 * hidden + 2 * 4 * hidden) * (4 if machine is CPU else 2)
    transformer = SimpleNamespace(config=SimpleNamespace(hidden_size=hidden))
    monkeypatch.setattr(budget, "find_transformer", lambda _: transformer)
    monkeypatch.setattr(budget, "_gpu_room", lambda *_: 24 * 2**30 / a_token)
    model: Any = SimpleNamespace(device=SimpleNamespace(type=machine.kind))
    tokens = budget.batch_budget(model, 2, window)
    layer = Layer(12 * hidden**2, hidden, 4 * hidden, False, 12, False)
    found = memory_of(Dimensions(12, hidden, window, layer, 1), machine, card="a10")
    assert found is not None
    # Two batches at once, and texts that are longer than a batch are one each.
    assert found.batches * 2**30 == pytest.approx(2 * max(tokens, window) * a_token)


def test_wide_models_have_small_batches() -> None:
    """Qwen3-Embedding-8B in bfloat16: 2.5 GiB of batches at 512 tokens by hand."""
    found = memory_of(replace(LARGE, window=512), GPU, card="h100")
    assert found is not None
    assert found.batches == pytest.approx(2 * 8192 * (8 * 4096 + 4 * 12288) * 2 / 2**30)
    whole = memory_of(LARGE, GPU, card="h100")
    assert whole is not None
    assert whole.batches == pytest.approx(4 * found.batches)
    # What a small card has room for: 0.7 · (16 GiB - 14.2 GiB) for two batches.
    small = memory_of(replace(LARGE, window=512), GPU, card="t4")
    assert small is not None
    assert 0.3 < small.batches < 0.7 * (16 - small.weights)


def test_every_card_has_its_memory() -> None:
    assert MEMORY.keys() == CARDS.keys()


def test_what_does_not_fit_is_refused_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_gib", lambda: 16.0)
    with pytest.raises(
        RequestError, match=r"^org/m takes about .* of 16 GiB .*dtype=bfloat16"
    ) as one:
        check_memory("org/m", memory_of(LARGE, CPU), "float32")
    # A shorter window makes no weights smaller.
    assert "model.window" not in str(one.value)
    smaller = replace(LARGE, parameters=500_000_000)
    several = memory_of(smaller, CPU)
    assert several is not None
    # All cores at once would take more than there is, but one text at a time fits.
    assert several.least < 16 < several.needed
    check_memory("org/m", several, "float32")
    monkeypatch.setattr(module, "memory_gib", lambda: 8.0)
    with pytest.raises(RequestError, match=r"one text of 32,768 tokens .*a smaller model\.window"):
        check_memory("org/m", memory_of(smaller, CPU), "float32")
    half = memory_of(replace(smaller, parameters=2_000_000_000), replace(CPU, dtype="bfloat16"))
    with pytest.raises(RequestError, match=r"Take a smaller model\.window or a device with more"):
        check_memory("org/m", half, "bfloat16")
    check_memory("org/m", memory_of(replace(smaller, window=2048), CPU), "float32")
    check_memory("org/m", None, "float32")


def test_an_extension_reads_more_tokens() -> None:
    from lcbench.repair.extension import Extension

    small = replace(LARGE, window=512)
    repair = replace(Repair(), extension=Extension("linear", 4096))
    found = memory_of(small, CPU, repairs=[repair])
    assert found is not None
    assert found.tokens == 4096


def test_the_estimate_and_a_run_say_it(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lcbench.plan.predict.matmul_rate", lambda device, dtype, hidden: 1e12)
    model = make_model("qwen3")
    words = [
        "model=custom",
        f"model.name={model}",
        "tasks=[DocstringRetrieval]",
        "engine.device=cpu",
    ]
    settings = read.read({"custom": composed(*words, f"results_dir={tmp_path}")})
    assert f"{model}: about 0." in describe(settings)
    card = LaunchSettings("local", card="t4")
    assert " of 16 GiB of memory: weights 0.0, " in describe(settings, launch=card)
    monkeypatch.setattr(module, "memory_gib", lambda: 1536.0)
    assert "of 1,540 GiB of memory" in describe(settings)
    # 1,600 texts of 32 dimensions, or of 8.
    assert "; embeddings 0.00019 GiB " in describe(settings)
    fewer = [replace(one, dimensions=8) for one in settings.models]
    assert "; embeddings 0.000048 GiB " in describe(replace(settings, models=tuple(fewer)))
    monkeypatch.setattr(module, "memory_gib", lambda: 1e-4)
    assert "A run refuses it." in describe(settings)
    with pytest.raises(LcbenchError, match=r"takes about .* of 0\.0001 GiB of memory"):
        lcbench.evaluate(
            model,
            "DocstringRetrieval",
            tau=1,
            results_dir=tmp_path / "runs",
            offline=True,
            progress=False,
            limit=5,
            engine={"device": "cpu", "scoring": 0},
        )
