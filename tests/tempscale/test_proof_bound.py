"""How exact attention has to be to be proven: as its logits allow, and no less."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import tiny_transformer

from lcbench.errors import InjectionError
from lcbench.tempscale import attend, softmax
from lcbench.tempscale.inject import inject
from lcbench.tempscale.prove import TOLERANCE, _is_attention, largest_logit

ARCHITECTURES = ["bert", "mpnet", "t5"]
_QUERIES = ("query", "q", "query_proj", "relative_attention_bias")


def scaled(architecture: str, dtype: torch.dtype, largest: float | None, back_end: str) -> Any:
    """Return a tiny model whose logits go up to ±`largest`; None: as its random weights have it."""
    model = tiny_transformer(architecture)
    if architecture not in ("mpnet", "deberta"):
        model.set_attn_implementation(back_end)
    if largest is not None:
        found: list[float] = []
        real = attend.largest_logit

        def note(*args: Any) -> float:
            found.append(real(*args))
            return found[-1]

        with pytest.MonkeyPatch.context() as patch:
            for module in (attend, softmax):
                patch.setattr(module, "largest_logit", note)
            inject(model, 1.0).remove()
        factor = largest / max(found)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if any(part in _QUERIES for part in name.split(".")):
                    weight *= factor
    return model.to(dtype)


def reference(monkeypatch: pytest.MonkeyPatch, change: Callable[..., tuple[Any, Any]]) -> None:
    """Let what is computed be compared with something else than it should be."""
    real = attend.reference_weights

    def changed(logits: Any, allowed: Any, tau: Any) -> Any:
        # τ = 1 is what it would be without any.
        return real(*((logits, allowed, tau) if (tau == 1).all() else change(logits, allowed, tau)))

    for module in (attend, softmax):
        monkeypatch.setattr(module, "reference_weights", changed)


def _refusal(model: Any, tau: float) -> str | None:
    try:
        inject(model, tau)
    except InjectionError as error:
        return str(error)
    return None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("back_end", ["eager", "sdpa"])
@pytest.mark.parametrize("largest", [None, 50.0])
@pytest.mark.parametrize("tau", [0.999, 0.1])
def test_every_precision_passes_here(
    tau: float, largest: float | None, back_end: str, architecture: str
) -> None:
    """Except where bfloat16 rounds the logits by as much as such a temperature changes them."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = scaled(architecture, dtype, largest, back_end)
        rounds = architecture == "mpnet" or back_end == "eager"
        if dtype == torch.bfloat16 and rounds and tau == 0.1:
            said = _refusal(model, tau)
            assert said is None or "bfloat16 rounds them by more than the temperature" in said
        else:
            assert inject(model, tau).proof.layers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("largest", [None, 50.0])
def test_a_coarser_device_is_judged_alike(
    largest: float | None, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise of 16 eps of the largest logit, at τ = 0.1: more than a fixed bound of 1e-5 allows."""
    generator = torch.Generator().manual_seed(0)
    model = scaled(architecture, torch.float32, largest, "sdpa")

    def coarse(logits: Any, allowed: Any, tau: Any) -> tuple[Any, Any, Any]:
        size = logits.double().masked_fill(~allowed, 0).abs().amax(dim=-1, keepdim=True)
        noise = torch.rand(logits.shape, generator=generator, dtype=torch.float64) - 0.5
        return logits.double() + 2**-23 * 16 * size * noise, allowed, tau

    reference(monkeypatch, coarse)
    error = inject(model, 0.1).proof.largest_error
    assert TOLERANCE[torch.float32] < error < 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("largest", [None, 50.0, 1.0])
@pytest.mark.parametrize("tau", [1.5, 0.8, 0.1])
def test_a_temperature_that_is_off_by_a_hundredth_is_refused(
    tau: float, largest: float | None, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference(monkeypatch, lambda logits, allowed, tau: (logits, allowed, 1.01 * tau))
    model = scaled(architecture, torch.float32, largest, "sdpa")
    with pytest.raises(InjectionError, match=rf"does not compute at τ = {tau:g}"):
        inject(model, tau)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("largest", [None, 50.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tau", [0.8, 0.1])
def test_no_temperature_at_all_is_refused(
    tau: float,
    dtype: torch.dtype,
    largest: float | None,
    architecture: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in half precision with large logits, where rounding alone may be as much as a weight."""
    # The model runs as without any, and the formula has one.
    reference(monkeypatch, lambda logits, allowed, given: (logits, allowed, tau * given))
    model = scaled(architecture, dtype, largest, "eager")
    with pytest.raises(InjectionError, match="does not compute at τ = "):
        inject(model, 1 + 1e-12)


def test_what_counts_is_what_is_attended_to() -> None:
    logits = torch.tensor([[[[1.0, -3.0, 90.0]]]])
    allowed = torch.tensor([[[[True, True, False]]]])
    assert largest_logit(logits, allowed, torch.tensor(0.5)) == 6.0


@pytest.mark.parametrize(
    "operation",
    [
        "_flash_attn_forward.default",
        "_varlen_attn.default",
        "_scaled_dot_product_flash_attention.default",
        "_efficient_attention_forward.default",
    ],
)
def test_every_kernel_of_attention_is_seen_outside(operation: str) -> None:
    assert _is_attention(operation, torch.zeros(1))
    assert not _is_attention("addmm.default", torch.zeros(1))
