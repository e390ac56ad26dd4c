"""Batches of a GPU: by the width of the model and the size of the card; their padded lengths."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engines import NOISE_FLOOR, encoder_of, largest_difference
from lcbench.encode import forward as module
from lcbench.encode.forward import Forward, _embed, _gpu_budget, _pool_in_float32

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
    assert _gpu_budget(model_of(hidden), 2) == tokens


def test_a_neighbour_changes_nothing_and_a_small_card_does(card: dict[str, Any]) -> None:
    card["free"] = GIB
    assert _gpu_budget(model_of(768), 2) == 65536
    # Not even the trial fits next to it.
    card["a_token"] = None
    assert _gpu_budget(model_of(768), 2) == 65536
    card["a_token"], card["total"] = 40_000.0, 4 * GIB
    # 0.7 · 4 GiB / 2 / 40,000 = 37,580.
    assert _gpu_budget(model_of(768), 2) == 32768
    card["total"] = GIB // 100
    assert _gpu_budget(model_of(768), 2) == 512


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


def test_batches_grow_again_and_later_each_time(make_model: Callable[[str], Path]) -> None:
    encoder: Any = encoder_of(make_model("bert"), batch_tokens=256, lanes=1)
    forward: Forward = encoder.engine._forward
    tokenizer = forward.tokenizer_for(None)
    tokens = tokenizer.tokenize(["a text of some length"] * 8)
    short, real, most = [10**6], forward._replicas[0].run, []

    def run(tokenizer: Any, batch: Any) -> Any:
        if sum(one.length for one in batch) > short[0]:
            raise torch.OutOfMemoryError
        return real(tokenizer, batch)

    forward._replicas[0].run = run  # type: ignore[method-assign]

    def blocks(count: int) -> list[int]:
        for _ in range(count):
            assert sorted(i for one in forward.run(tokens) for i in one.texts) == list(range(8))
            most.append(forward.batch_tokens)
        return most[-count:]

    assert blocks(1) == [256]
    short[0] = 30
    assert blocks(1)[0] < 64
    least = forward.least_tokens
    short[0] = 10**6
    # Eight blocks after the first time: the failure itself doubled four.
    grown = blocks(8 * 4)
    assert grown[:7] == [least] * 7
    assert grown[7] == 2 * least
    assert grown[-1] == 256
    assert forward.arithmetic()["batch_tokens"] == 256
    assert forward.arithmetic()["least_batch_tokens"] == least
    encoder.engine.close()


def test_lengths_are_rounded_up_within_the_window(make_model: Callable[[str], Path]) -> None:
    encoder: Any = encoder_of(make_model("bert"), batch_tokens=512, lanes=1)
    forward: Forward = encoder.engine._forward
    tokenizer = forward.tokenizer_for(None)
    window = tokenizer.window
    assert window is not None
    assert [tokenizer.width(n, 8) for n in (1, 8, 9)] == [8, 8, 16]
    assert [tokenizer.width(n, 7) for n in (window - 1, window)] == [window, window]
    assert tokenizer.width(9, 1) == 9
    texts = tokenizer.tokenize(["one", "a text that is somewhat longer than the other one"])
    plain, padded = _embed(encoder.model, tokenizer, texts, 1)
    rounded, more = _embed(encoder.model, tokenizer, texts, 8)
    assert padded < more
    assert more % 8 == 0
    assert largest_difference(plain.numpy(), rounded.numpy()) < NOISE_FLOOR
    encoder.engine.close()


def test_half_precision_is_pooled_in_float32_without_padding(
    make_model: Callable[[str], Path],
) -> None:
    """Where a version of sentence-transformers would sum in half precision itself."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    encoder: Any = encoder_of(make_model("bert"), batch_tokens=512, lanes=1)
    model = encoder.model
    assert _pool_in_float32(model) == []
    model[0].can_flatten_inputs = True
    assert _pool_in_float32(model) == []  # float32 anyway
    model.to(torch.bfloat16)
    (pooling,) = _pool_in_float32(model)
    assert type(pooling) is Pooling
    real, given = Pooling._forward_flattened, []

    def note(self: Any, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        given.append(tokens.dtype)
        return real(self, tokens, *args, **kwargs)

    count = 4096
    tokens = torch.full((1, count, 32), 0.3, dtype=torch.bfloat16)
    tokens += torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0)).bfloat16() / 8
    bounds = torch.tensor([0, count])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pooling, "_forward_flattened", note)
        (pooled,) = pooling._forward_flattened(tokens, {"cu_seq_lens_q": bounds})
    assert given == [torch.float32]
    assert pooled.dtype == torch.bfloat16
    exact = tokens.double().mean(dim=1)
    assert float((pooled.double() - exact).abs().max() / exact.abs().max()) < 4e-3
    encoder.engine.close()


def test_the_position_bias_is_laid_out_as_attention_takes_it(
    make_model: Callable[[str], Path],
) -> None:
    """No layer copies what it adds to the logits, as large as all weights of a batch."""
    folder = make_model("t5")
    plain = encoder_of(folder).model
    texts = ["one", "a text that is somewhat longer than the other one"]
    for tau in (1.0, 0.7):
        encoder: Any = encoder_of(folder, tau, batch_tokens=512, lanes=1)
        tokenizer = encoder.engine._forward.tokenizer_for(None)
        encoder.embed(texts)  # brings the model to its temperature
        tokens = tokenizer.tokenize(texts)
        layer = encoder.model[0].auto_model.encoder.block[0].layer[0].SelfAttention
        with _Copies() as copies:
            found, _ = _embed(encoder.model, tokenizer, tokens, 1)
            assert copies.of_weights == 0
            # As it is without: once a layer.
            bias = layer.__dict__.pop("compute_bias")
            expected, _ = _embed(encoder.model, tokenizer, tokens, 1)
            assert copies.of_weights == 2
        layer.compute_bias = bias
        assert torch.equal(found, expected)
        encoder.engine.close()
        assert "compute_bias" not in layer.__dict__
    assert largest_difference(plain.encode(texts), found.numpy()) > 1e-3


class _Copies(TorchDispatchMode):
    """Counts copies of tensors as large as the attention weights of two texts."""

    of_weights = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.contiguous.default and not args[0].is_contiguous():
            self.of_weights += args[0].shape[0] == 2 and args[0].shape[2:3] == args[0].shape[3:]
        return func(*args, **(kwargs or {}))
