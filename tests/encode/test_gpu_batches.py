"""Batches of a GPU: their padded lengths, and what is computed in which precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from engines import NOISE_FLOOR, encoder_of, largest_difference
from torch.utils._python_dispatch import TorchDispatchMode

from lcbench.encode.embed import embed
from lcbench.encode.forward import Forward


def test_batches_grow_again_and_later_each_time(make_model: Callable[[str], Path]) -> None:
    encoder: Any = encoder_of(make_model("bert"), batch_tokens=256, lanes=1)
    forward: Forward = encoder.engine._forward
    tokenizer = forward.tokenizer_for(None)
    tokens = tokenizer.tokenize(["a text of some length"] * 8)
    short, real, most = [10**6], forward._replicas[0].run, []

    def run(tokenizer: Any, batch: Any, *how: Any) -> Any:
        if sum(one.length for one in batch) > short[0]:
            raise torch.OutOfMemoryError
        return real(tokenizer, batch, *how)

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
    plain, padded = embed(encoder.model, tokenizer, texts)
    rounded, more = embed(encoder.model, tokenizer, texts, multiple=8)
    assert padded < more
    assert more % 8 == 0
    assert largest_difference(plain.numpy(), rounded.numpy()) < NOISE_FLOOR
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
            found, _ = embed(encoder.model, tokenizer, tokens)
            assert copies.of_weights == 0
            # As it is without: once a layer.
            bias = layer.__dict__.pop("compute_bias")
            expected, _ = embed(encoder.model, tokenizer, tokens)
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
