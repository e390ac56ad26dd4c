"""Tokens of a batch on a GPU: by the width of the model and the size of the card."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lcbench.encode import budget as module
from lcbench.encode.budget import batch_budget

GIB = 2**30


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A GPU of 80 GiB, all of it free, on which a token of a batch takes 40,000 bytes."""
    facts: dict[str, Any] = {"total": 80 * GIB, "free": 80 * GIB, "a_token": 40_000.0}
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "mem_get_info", lambda _: (facts["free"], facts["total"]))
    monkeypatch.setattr(cuda, "memory_allocated", lambda _: 0)
    monkeypatch.setattr(cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(module, "_bytes_a_token", lambda *_: facts["a_token"])
    return facts


def model_of(hidden: int, window: int = 512) -> Any:
    transformer = SimpleNamespace(config=SimpleNamespace(hidden_size=hidden))
    return SimpleNamespace(device=torch.device("cuda"), max_seq_length=window, inner=transformer)


@pytest.fixture(autouse=True)
def _plain_models(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.find_transformer
    monkeypatch.setattr(
        module, "find_transformer", lambda one: getattr(one, "inner", None) or real(one)
    )


@pytest.mark.parametrize(
    ("hidden", "tokens"), [(384, 65536), (768, 65536), (1024, 32768), (4096, 8192)]
)
def test_the_width_decides(hidden: int, tokens: int, card: dict[str, Any]) -> None:
    assert batch_budget(model_of(hidden), 2, 512) == tokens


def test_a_neighbour_changes_nothing_and_a_small_card_does(card: dict[str, Any]) -> None:
    card["free"] = GIB
    assert batch_budget(model_of(768), 2, 512) == 65536
    # Not even the trial fits next to it.
    card["a_token"] = None
    assert batch_budget(model_of(768), 2, 512) == 65536
    card["a_token"], card["total"] = 40_000.0, 4 * GIB
    # 0.7 · 4 GiB / 2 / 40,000 = 37,580.
    assert batch_budget(model_of(768), 2, 512) == 32768
    card["total"] = GIB // 100
    assert batch_budget(model_of(768), 2, 512) == 512


def test_the_trial_reads_the_window_of_the_repair(
    card: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A longer text takes more memory for each of its tokens, and has to fit as a whole."""
    asked: list[int] = []

    def took(model: Any, window: int) -> float:
        asked.append(window)
        return 20.0 * window

    monkeypatch.setattr(module, "_bytes_a_token", took)
    # 0.7 · 80 GiB / 2 / (20 · window).
    budgets = {window: batch_budget(model_of(768), 2, window) for window in (512, 32768)}
    assert asked == [512, 16384]
    assert budgets == {512: 65536, 32768: 65536}
    card["total"] = 4 * GIB
    assert batch_budget(model_of(768), 2, 4096) == 16384
    assert batch_budget(model_of(768), 2, 16384) == 16384


def test_the_trial_has_a_padded_row_and_is_halved_where_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, seen = torch.cuda, []
    monkeypatch.setattr(cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(cuda, "memory_allocated", lambda _: 1000)
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda _: 1000 + 8 * 512 * 7)
    error: list[Exception] = [
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
        )
    ]

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        seen.append((tuple(input_ids.shape), attention_mask.sum(dim=1).tolist()))
        if len(input_ids) > 8 or not isinstance(error[0], RuntimeError) or "size" in str(error[0]):
            raise error[0]

    model = SimpleNamespace(device=torch.device("cpu"), inner=forward)
    assert module._bytes_a_token(model, 512) == 7.0  # type: ignore[arg-type]
    assert [shape for shape, _ in seen] == [(32, 512), (16, 512), (8, 512)]
    assert seen[-1][1] == [512] * 7 + [256]
    # What is no lack of memory is not hidden.
    error[0] = RuntimeError("a size that does not match")
    with pytest.raises(RuntimeError, match="does not match"):
        module._bytes_a_token(model, 512)  # type: ignore[arg-type]
    error[0] = torch.AcceleratorError("CUDA error: an illegal memory access: size unknown")
    with pytest.raises(torch.AcceleratorError):
        module._bytes_a_token(model, 512)  # type: ignore[arg-type]
