"""Attention without padding: kernels of a GPU get what they take, and nothing waits for them."""

from typing import Any

import pytest
import torch
from exactness import (
    LENGTHS,
    NEVER_UNPADDED,
    POLICIES,
    UNPADDED,
    make,
    states,
    unpadded_batch,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import lcbench
from lcbench.errors import InjectionError
from lcbench.tempscale import unpadded
from lcbench.tempscale.unpadded import attend_by_text, boundaries

# Between two orders of the same sums in float32.
ROUNDING = 2e-6


class FakeKernels:
    """In the place of torch's CUDA kernels: checks what they are given, and computes it.

    Attributes:
        calls: the name of each kernel called, whether it was causal, and its window.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool, Any]] = []
        self.scales: list[float] = []

    def __call__(self, kernel: str, *args: Any, **kwargs: Any) -> Tensor:
        return getattr(self, kernel)(*args, **kwargs)  # type: ignore[no-any-return]

    def flash(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cum_seq_q: Tensor,
        cum_seq_k: Tensor,
        max_q: int,
        max_k: int,
        dropout_p: float,
        is_causal: bool,
        return_debug_mask: bool,
        *,
        scale: float,
        window_size_left: int | None,
        window_size_right: int | None,
    ) -> Tensor:
        assert query.dtype in (torch.float16, torch.bfloat16)
        assert query.dim() == 3
        assert not return_debug_mask
        self._check(query, key, value, cum_seq_q, cum_seq_k, (max_q, max_k, dropout_p, scale))
        window = None if window_size_left is None else window_size_left + 1
        assert window_size_right == (0 if is_causal and window else window_size_left)
        self.calls.append(("flash", is_causal, window))
        return by_the_formula(query, key, value, cum_seq_q, scale, is_causal, window)

    def efficient(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: None,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float,
        custom_mask_type: int,
        *,
        scale: float,
    ) -> Tensor:
        assert query.dtype == torch.float32
        assert bias is None
        # The kernel does not know of groups of heads.
        assert query.shape == key.shape == value.shape
        assert query.dim() == 4
        assert len(query) == 1
        numbers = (max_seqlen_q, max_seqlen_k, dropout_p, scale)
        parts = (query[0], key[0], value[0])
        self._check(*parts, cu_seqlens_q, cu_seqlens_k, numbers)
        assert custom_mask_type in (0, 1)
        is_causal = custom_mask_type == 1
        self.calls.append(("efficient", is_causal, None))
        return by_the_formula(*parts, cu_seqlens_q, scale, is_causal, None)[None]

    def _check(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        starts: Tensor,
        starts_of_keys: Tensor,
        numbers: tuple[int, int, float, float],
    ) -> None:
        assert query.dtype == key.dtype == value.dtype
        # The last dimension has to be contiguous.
        assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        assert starts.dtype == starts_of_keys.dtype == torch.int32
        longest, longest_key, dropout, scale = numbers
        assert type(longest) is int
        assert longest == longest_key
        assert dropout == 0
        assert type(scale) is float
        self.scales.append(scale)


def by_the_formula(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Attention of each text in float64: [tokens, heads, size]; it waits for no number either."""
    groups = query.shape[1] // key.shape[1]
    keys, values = (one.double().repeat_interleave(groups, dim=1) for one in (key, value))
    places = torch.arange(len(query))
    text = (places[:, None] >= starts[1:]).sum(dim=1)
    behind = places[:, None] - places
    allowed = text[:, None] == text
    if causal:
        allowed &= behind >= 0
    if window is not None:
        allowed &= behind.abs() < window
    logits = scale * torch.einsum("qhd,khd->hqk", query.double(), keys)
    weights = logits.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", weights, values).to(query.dtype)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> FakeKernels:
    """Have the attention take this machine for a GPU."""
    fake = FakeKernels()
    monkeypatch.setattr(unpadded, "_is_on_gpu", lambda tensor: True)
    monkeypatch.setattr(unpadded, "unpadded_attention", fake)
    return fake


class Waits(TorchDispatchMode):
    """Counts operations for which the CPU would have to wait for a GPU."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        names = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
        self.count += func.__name__.partition(".")[0] in names
        return func(*args, **(kwargs or {}))


def parts(dtype: torch.dtype, heads: int = 4, groups: int = 1, size: int = 8) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def make_part(count: int) -> Tensor:
        return torch.randn(sum(LENGTHS), count, size, generator=generator).to(dtype)

    return make_part(heads), make_part(heads // groups), make_part(heads // groups)


@pytest.mark.parametrize(
    ("dtype", "causal", "window", "size", "called"),
    [
        (torch.float32, False, None, 8, [("efficient", False, None)]),
        (torch.float32, True, None, 8, [("efficient", True, None)]),
        # There is no kernel: texts are padded for this.
        (torch.float32, False, 4, 8, []),
        (torch.float32, True, 4, 8, []),
        (torch.float32, False, None, 6, []),
        (torch.bfloat16, False, None, 8, [("flash", False, None)]),
        (torch.float16, True, None, 8, [("flash", True, None)]),
        (torch.bfloat16, False, 4, 8, [("flash", False, 4)]),
        (torch.bfloat16, True, 4, 8, [("flash", True, 4)]),
        (torch.bfloat16, True, 4, 12, []),
        (torch.bfloat16, False, None, 264, []),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_gpu_gets_the_kernel_that_takes_it(
    dtype: torch.dtype,
    causal: bool,
    window: int | None,
    size: int,
    called: list[Any],
    groups: int,
    kernels: FakeKernels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, key, value = parts(dtype, groups=groups, size=size)
    told = boundaries(LENGTHS)
    found = attend_by_text(
        *(query, key, value),
        starts=told["cu_seq_lens_q"],
        longest=told["max_length_q"],
        scale=0.4,
        causal=causal,
        window=window,
    )
    expected = by_the_formula(query, key, value, told["cu_seq_lens_q"], 0.4, causal, window)
    limit = {torch.float32: ROUNDING, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    assert float((found - expected).abs().max() / expected.abs().max()) < limit
    assert kernels.calls == called
    # On a CPU likewise.
    monkeypatch.setattr(unpadded, "_is_on_gpu", lambda tensor: False)
    alone = attend_by_text(
        *(query, key, value),
        starts=told["cu_seq_lens_q"],
        longest=told["max_length_q"],
        scale=0.4,
        causal=causal,
        window=window,
    )
    assert float((alone - expected).abs().max() / expected.abs().max()) < limit


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 5, 65])
def test_what_is_padded_equals_each_text_alone_and_is_of_like_length(
    causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long text among many short ones does not make them as long."""
    monkeypatch.setattr(unpadded, "_MASKED_AT_ONCE", 2**14)
    lengths = [8] * 200 + [512, 0, 1, 3, 2, 100, 70, 5]
    starts = boundaries(lengths)["cu_seq_lens_q"]
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(sum(lengths), heads, 8, generator=generator) for heads in (4, 2, 2)
    )
    expected = unpadded._one_by_one(query, key, value, starts, 0.4, causal, window)
    seen: list[tuple[int, int]] = []
    attention = nn.functional.scaled_dot_product_attention

    def noted(*args: Tensor, attn_mask: Tensor, **keys: Any) -> Tensor:
        seen.append((len(attn_mask), attn_mask.shape[-1]))
        assert args[0].shape[:3] == (len(attn_mask), 4, attn_mask.shape[-1])
        return attention(*args, attn_mask=attn_mask, **keys)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", noted)
    found = unpadded._padded(query, key, value, starts, 0.4, causal, window)
    assert found.shape == query.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < ROUNDING
    assert sum(texts * longest for texts, longest in seen) < 2 * sum(lengths)
    assert all(texts == 1 or texts * longest**2 <= 2**14 for texts, longest in seen)
    assert sum(texts for texts, _ in seen) == len(lengths) - 1
    # The next layer does not ask for lengths again.
    monkeypatch.setattr(Tensor, "tolist", None)
    again = unpadded._padded(query, key, value, starts, 0.4, causal, window)
    assert torch.equal(again, found)


@pytest.mark.parametrize("policy", [None, *POLICIES])
@pytest.mark.parametrize("architecture", ["BERT", "Qwen3", "ModernBERT", "Mistral"])
def test_a_model_waits_for_no_number_of_a_gpu(
    architecture: str, policy: str | None, kernels: FakeKernels
) -> None:
    """Neither for lengths, nor for temperatures by length, once a batch is on its way.

    But for what is padded because no kernel takes it: there the first layer asks for lengths.
    """
    model = make(architecture)
    model.set_attn_implementation(UNPADDED)
    inputs = unpadded_batch(model)
    with lcbench.inject(model, 1.0 if policy is None else POLICIES[policy]) as injection:
        injection.role = "document"
        kernels.scales.clear()
        with Waits() as waits, torch.inference_mode():
            model(**inputs)
        injection.check()
    # transformers looks once a batch whether positions begin anew, before the first layer.
    assert waits.count <= (1 if architecture in ("Qwen3", "Mistral") else 0)
    if policy == "constant" and architecture == "BERT":
        assert kernels.scales == [8**-0.5 / 0.7] * 2
    if policy == "layers" and architecture == "BERT":
        assert kernels.scales == [8**-0.5, 8**-0.5 / 0.7]


@pytest.mark.parametrize("architecture", ["BERT", "T5", "MPNet", "Qwen3"])
def test_padded_temperatures_by_length_wait_for_no_number_either(architecture: str) -> None:
    """And no tensor as large as the queries is made in float64."""
    from exactness import batch

    model = make(architecture)
    inputs = batch()
    counts = []
    for policy in (0.7, POLICIES["steps"]):
        with lcbench.inject(model, policy) as injection:
            with Waits() as waits, Doubles() as doubles, torch.inference_mode():
                model(**inputs)
            injection.check()
        counts.append(waits.count)
        assert doubles.most == 0
    # transformers' own, for a mask.
    assert counts[0] == counts[1] <= 2


class Doubles(TorchDispatchMode):
    """Finds the size of the largest tensor in float64."""

    most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.dtype == torch.float64:
            self.most = max(self.most, output.numel())
        return output


@pytest.mark.parametrize("architecture", ["ModernBERT", "Mistral", "Qwen3", "BERT"])
def test_padded_batches_are_as_with_sdpa(architecture: str) -> None:
    """Also where all texts are as long, and no mask is given."""
    from exactness import batch

    model = make(architecture)
    for lengths in (LENGTHS, (24, 24)):
        inputs = batch(lengths)
        read = inputs["attention_mask"].bool()
        found = {}
        for implementation in ("sdpa", UNPADDED):
            model.set_attn_implementation(implementation)
            with torch.no_grad():
                found[implementation] = model(**inputs).last_hidden_state[read]
                if read.all():
                    plain = model(inputs["input_ids"]).last_hidden_state[read]
                    assert torch.allclose(plain, found[implementation], atol=ROUNDING)
        largest = found["sdpa"].abs().max()
        assert float((found[UNPADDED] - found["sdpa"]).abs().max() / largest) < ROUNDING


@pytest.mark.parametrize("architecture", sorted(NEVER_UNPADDED & {"T5", "Gemma 2"}))
def test_what_is_added_to_logits_is_an_error(architecture: str) -> None:
    model = make(architecture)
    model.set_attn_implementation(UNPADDED)
    with pytest.raises(InjectionError, match="which attention without padding has not"):
        states(model)


class Oblivious(nn.Module):
    """An attention layer that does not know where texts begin, and attends to all of them."""

    def __init__(self, replaced: Any) -> None:
        super().__init__()
        self.replaced = replaced

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        for name in unpadded.BOUNDARIES:
            kwargs.pop(name, None)
        return self.replaced(*args, **kwargs)


def test_the_proof_sees_texts_that_attend_to_one_another() -> None:
    """Padded the layer is right: only without padding it is not."""
    model = make("BERT")
    attention = model.encoder.layer[1].attention
    attention.self = Oblivious(attention.self)
    model.set_attn_implementation("sdpa")
    with lcbench.inject(model, 0.7):
        pass
    model.set_attn_implementation(UNPADDED)
    with pytest.raises(InjectionError, match=r"encoder\.layer\.1\.attention\.self\.replaced does"):
        lcbench.inject(model, 0.7)


def test_the_proof_shows_each_text_its_own_temperature() -> None:
    model = make("RoBERTa")
    model.set_attn_implementation(UNPADDED)
    with lcbench.inject(model, POLICIES["steps"]) as injection:
        assert injection.proof.tau == ((0.6, 1.0),) * 2
        assert injection.proof.largest_error < 1e-6
