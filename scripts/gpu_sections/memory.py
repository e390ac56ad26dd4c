"""Section 7: a device without enough memory: smaller batches, and errors that may pass.

On a GPU this process is allowed little of it; on a CPU the model raises what torch would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from gpu_sections.check import Check
from gpu_sections.minilm import TOLERANCE
from gpu_sections.models import BASE, TINY, load, make_model, texts_of

# What this process may have of a GPU: bge-base in float32, and a fraction of the largest batch.
_ALLOWED_BYTES = 3 * 2**30
_WINDOW, _QUICK_WINDOW = 512, 32
_BATCH_TOKENS, _QUICK_BATCH_TOKENS = 262144, 4096
_TOKENS, _QUICK_TOKENS = 300_000, 8192
# On a CPU, the most tokens of a batch that the model does not refuse.
_CPU_LIMIT = 700


def run(check: Check) -> None:
    """Encode with little memory, and see what each step raises without any."""
    from lcbench.encode.forward import Forward
    from lcbench.repair.repair import Repair
    from lcbench.tempscale.policy import parse

    window = _QUICK_WINDOW if check.quick else _WINDOW
    tokens = _QUICK_TOKENS if check.quick else _TOKENS
    most = _QUICK_BATCH_TOKENS if check.quick else _BATCH_TOKENS
    folder = make_model(check.folder / "model", TINY if check.quick else BASE)
    model = load(folder, check.device, "float32", window)
    texts = texts_of(window, tokens, mixed=True)

    forward = Forward(model, batch_tokens=most // 64)
    expected, _ = _embeddings(forward, texts)
    forward.close()

    forward = Forward(model, batch_tokens=most)
    try:
        with check.part("little memory"), _little_memory(check, model):
            got, largest = _embeddings(forward, texts)
            error = float(abs(got - expected).max())
            check.measure("batch that was asked for, tokens", most)
            check.measure("largest batch that went through, tokens", largest)
            check.measure("largest difference from enough memory", error)
            check.require(largest < most, "no batch was made smaller")
            check.require(error <= TOLERANCE, f"smaller batches differ by {error:.1e}")
        steps: dict[str, Callable[[], object]] = {
            "a text": lambda: _embeddings(forward, texts[:1]),
            "the proof": lambda: forward.use(Repair(parse(0.8))),
            "loading": lambda: load(folder, check.device, "float32", window),
        }
        with _no_memory(check, model):
            for name, step in steps.items():
                with check.part(name):
                    _require_passing(check, name, step)
        # What has failed must not have left anything behind.
        with check.part("afterwards"):
            got, _ = _embeddings(forward, texts[:8])
            error = float(abs(got - expected[:8]).max())
            check.measure("largest difference afterwards", error)
            check.require(error <= TOLERANCE, f"afterwards embeddings differ by {error:.1e}")
    finally:
        forward.close()


def _embeddings(forward: Any, texts: list[str]) -> tuple[Any, int]:
    """Return the embeddings of texts, and the tokens of the largest batch, padding included."""
    import numpy as np

    tokens = forward.tokenizer_for(None).tokenize(texts)
    embeddings = np.empty((len(texts), forward.dimensions), dtype=np.float32)
    largest = 0
    for batch in forward.run(tokens):
        embeddings[batch.texts] = batch.embeddings
        largest = max(largest, batch.padded)
    return embeddings, largest


def _require_passing(check: Check, name: str, step: Callable[[], object]) -> None:
    """Require that a step fails in a way that a sweep tries again."""
    from lcbench.errors import RequestError
    from lcbench.system.transient import is_transient

    try:
        step()
    # It is what is looked at.
    except Exception as error:
        kind = type(error).__name__
        check.measure(f"out of memory, {name}", f"{kind}: {str(error)[:80]}")
        check.require(is_transient(error), f"{name}: {kind} does not count as one that may pass")
        check.require(
            not isinstance(error, RequestError), f"{name}: {kind} refuses the model for good"
        )
    else:
        check.require(False, f"{name}: no error without memory")


@contextmanager
def _little_memory(check: Check, model: Any) -> Iterator[None]:
    """Let a model have little memory for its batches."""
    if check.cuda:
        with _allowed(check, _ALLOWED_BYTES):
            yield
        return
    with _refusing(model, _CPU_LIMIT):
        yield


@contextmanager
def _no_memory(check: Check, model: Any) -> Iterator[None]:
    """Let nothing have any memory of the device beyond what is in use."""
    import torch

    if not check.cuda:
        with _refusing(model, 0), mock.patch.object(torch.nn.Module, "to", _refuse):
            yield
        return
    torch.cuda.empty_cache()
    hoard = []
    with _allowed(check, torch.cuda.memory_reserved(check.device)):
        # Blocks that are in hand already, the largest first.
        size = 2**30
        while size >= 512:
            try:
                hoard.append(torch.empty(size, dtype=torch.uint8, device=check.device))
            except torch.OutOfMemoryError:
                size //= 2
        yield
        hoard.clear()


@contextmanager
def _allowed(check: Check, size: int) -> Iterator[None]:
    """Let this process have so many bytes of the GPU."""
    import torch

    total = torch.cuda.get_device_properties(check.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(size / total, check.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, check.device)
        torch.cuda.empty_cache()


def _refuse(*_: Any, **__: Any) -> Any:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@contextmanager
def _refusing(model: Any, limit: int) -> Iterator[None]:
    """Let a model on a CPU refuse batches of more tokens, as a GPU without memory does."""
    from lcbench.tempscale.transformer import find_transformer

    transformer = find_transformer(model)
    forward = transformer.forward

    def limited(*args: Any, **kwargs: Any) -> Any:
        return _refuse() if kwargs["input_ids"].numel() > limit else forward(*args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(transformer, "forward", limited))
        yield
