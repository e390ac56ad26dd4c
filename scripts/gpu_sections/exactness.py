"""Section 2: injected temperatures on the device against the formula in float64 on the CPU.

The reference is that of `tests/support/exactness.py`: attention written from the formula alone,
with neither torch's attention nor lcbench's injection in it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from gpu_sections.check import NEEDS_CUDA, ROOT, Check

_ARCHITECTURES = ("BERT", "RoBERTa", "T5", "MPNet", "ModernBERT", "Mistral")
# Heads of 64, as the models of the paper have; the tests' own are of 8.
_SIZES: dict[str, dict[str, Any]] = {
    "T5": {"d_model": 128, "d_kv": 64, "d_ff": 256, "num_heads": 2},
    # Causal, with a window and keys that heads share.
    "Mistral": {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "intermediate_size": 256,
    },
    "": {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256},
}
# Texts of one batch in tokens: padded, and all as long, which the models mask differently.
_RAGGED = (48, 31, 7)
_WHOLE = (48, 48, 48)
# Kernels of torch's attention, and what it calls them; those that take float32 and a mask last.
_KERNELS = {
    "cudnn": "CUDNN_ATTENTION",
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "math": "MATH",
}
_HALF_PRECISION_KERNELS = ("CUDNN_ATTENTION", "FLASH_ATTENTION")
# Architectures that each kernel is forced on: all of each text, and causal with a window.
_FORCED = ("BERT", "Mistral")
# Largest errors at τ = 1; below it, where logits are divided by τ, their rounding weighs 1 / τ as
# much.
_LIMITS = {"float32": 1e-5, "bfloat16": 4e-2, "float16": 5e-3}
# τ that texts get: what is injected, and the name in `tests/support/exactness.py`, or a constant.
_POLICIES: dict[str, tuple[Any, str]] = {
    "1": (1.0, "1"),
    "0.8": (0.8, "0.8"),
    "0.1": (0.1, "0.1"),
    "by role": ({"query": 0.7, "document": 1.3}, "role"),
    "by layer": ({"layers": {0: 1.0, 1: 0.7}}, "layers"),
    "by length": ({"length": {0: 1.0, 10: 0.9, 16: 0.6}}, "steps"),
    "by head": (None, "two heads"),
}
# Of the two heads of each layer.
_BY_HEAD = [[0.7, 1.2], [1.0, 0.6]]
# Those that each kernel is tried with: a scale, a small one, and scaled queries.
_OF_KERNELS = ("0.8", "0.1", "by length", "by head")
# What changes attention besides τ: `attend=`, and SelfExtend for rotary models.
_CHANGES = ("attnscale", "calibrate", "selfextend")
# What makes the logits of heads of 64 as large as those of the tests' heads of 8.
_SMALLER = 0.3
# The largest logit of attention that is made as large as some trained models have.
_LARGE_LOGIT = 50.0
_NO_KERNEL = "no kernel"
_REFUSED_CALLS = "refused"
# What torch says where a kernel that is forced does not exist for a dtype, mask or device.
_NO_KERNEL_SIGNS = ("No available kernel", "No viable backend")
# Half-precision means over long texts against float64, relative to the mean's length: a sum in
# float32 that is rounded once to bfloat16 is within 2^-8.
_POOLING_LIMIT = 4e-3
_POOLED_TOKENS = 4096


@dataclass(frozen=True)
class BackEnd:
    """A way to compute attention.

    Attributes:
        name: in the report.
        implementation: of transformers.
        kernel: of torch's attention that is forced, or None.
    """

    name: str
    implementation: str
    kernel: str | None = None

    def chosen(self) -> AbstractContextManager[Any]:
        """Let torch take this kernel and no other."""
        if self.kernel is None:
            return nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel(getattr(SDPBackend, self.kernel))


def run(check: Check) -> None:
    """Compare every architecture, back end, policy and dtype."""
    import torch

    sys.path.insert(0, str(ROOT / "tests" / "support"))
    # Models this small are slower on several cores than on one.
    torch.set_num_threads(1)
    back_ends = [BackEnd("eager", "eager"), BackEnd("sdpa", "sdpa")]
    back_ends += [BackEnd("varlen", "lcbench_varlen")]
    back_ends += [BackEnd(f"sdpa, {name}", "sdpa", kernel) for name, kernel in _KERNELS.items()]
    if not check.cuda:
        # A CPU has none of the others.
        back_ends = [one for one in back_ends if one.kernel in (None, "MATH", "CUDNN_ATTENTION")]
    for dtype in _LIMITS:
        for architecture in _ARCHITECTURES:
            if check.has_time(f"{architecture} in {dtype}", 3.0):
                with check.part(f"{architecture} in {dtype}"):
                    _compare(check, architecture, dtype, back_ends)
    with check.part("large logits"):
        _large_logits(check, back_ends[:3])
    with check.part("changed attention"):
        _changed_attention(check, back_ends[:3])
    with check.part("means without padding"):
        _pooling(check)
    if check.cuda:
        with check.part("kernels without padding"):
            _unpadded_kernels(check)
    else:
        check.measure("kernels without padding", NEEDS_CUDA)


def _make(architecture: str, **changes: Any) -> Any:
    import exactness
    import torch

    model = exactness.make(architecture, **_SIZES.get(architecture, _SIZES[""]), **changes)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and set(name.split(".")) & exactness._QUERIES_AND_KEYS:
                weight *= _SMALLER
    return model


def _back_ends_of(architecture: str, back_ends: Sequence[BackEnd]) -> list[BackEnd]:
    """Return the back ends that transformers has for an architecture."""
    import exactness

    refused = set(exactness.REFUSED_BY_TRANSFORMERS)
    refused |= {(name, exactness.UNPADDED) for name in exactness.NEVER_UNPADDED}
    return [
        one
        for one in back_ends
        if (architecture, one.implementation) not in refused
        and (one.kernel is None or architecture in _FORCED)
    ]


def _taus(name: str, lengths: Sequence[int]) -> list[list[Any]]:
    """Return τ by layer and text, and head where these differ."""
    import exactness

    if name == "two heads":
        return [[layer] * len(lengths) for layer in _BY_HEAD]
    try:
        constant = float(name)
    except ValueError:
        return exactness.temperatures(name, "query", lengths)
    return [[constant] * len(lengths)] * exactness.LAYERS


def _states(model: Any, lengths: Sequence[int], device: str) -> Any:
    """Return the last hidden states of what is not padding, on the CPU: [tokens, dimensions]."""
    import exactness
    import torch

    from lcbench.tempscale.unpadded import runs_unpadded

    if runs_unpadded(model):
        inputs = exactness.unpadded_batch(model, lengths)
        with torch.no_grad():
            states = model(**_on(device, inputs)).last_hidden_state
        return states[0].double().cpu()
    inputs = _on(device, exactness.batch(lengths))
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    return states[inputs["attention_mask"].bool()].double().cpu()


def _on(device: str, inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: one.to(device) if hasattr(one, "to") else one for name, one in inputs.items()}


def _compare(check: Check, architecture: str, dtype: str, back_ends: Sequence[BackEnd]) -> None:
    """Measure one architecture in one dtype: the largest error of each back end is a row."""
    import exactness
    import torch

    kind = getattr(torch, dtype)
    exact = _make(architecture).to(torch.float64 if dtype == "float32" else kind)
    cases = [
        (policy, lengths)
        for policy in _POLICIES
        # Texts that are all as long are masked otherwise, whatever their temperature.
        for lengths in ((_RAGGED, _WHOLE) if policy == "0.8" else (_RAGGED,))
    ]
    expected = {}
    for policy, lengths in cases:
        with exactness.reference_attention(exact, _taus(_POLICIES[policy][1], lengths), False):
            expected[policy, lengths] = _states(exact, lengths, "cpu")
    for back_end in _back_ends_of(architecture, back_ends):
        if dtype == "float32" and back_end.kernel in _HALF_PRECISION_KERNELS:
            continue
        model = _make(architecture).to(kind).to(check.device)
        model.set_attn_implementation(back_end.implementation)
        name = f"{architecture}, {dtype}, {back_end.name}"
        cells = []
        for policy, lengths in cases:
            if back_end.kernel is not None and policy not in _OF_KERNELS:
                cells.append("–")
                continue
            tau = _POLICIES[policy][0] or {"heads": exactness.heads_file([_BY_HEAD])}
            taus = torch.tensor(_taus(_POLICIES[policy][1], lengths))
            smallest = float(taus.min())
            error = _error(check, model, back_end, tau, lengths, expected[policy, lengths])
            limit = _LIMITS[dtype] * max(1.0, 1 / smallest)
            cells.append(error if isinstance(error, str) else f"{error:.1e}")
            # Written so that NaN fails as well.
            holds = error <= limit if isinstance(error, float) else error == _NO_KERNEL
            check.require(holds, f"{name}, τ {policy}: {cells[-1]}, limit {limit:.0e}")
        heading = ["architecture, dtype, back end"]
        heading += [f"τ {p}{', whole texts' if n == _WHOLE else ''}" for p, n in cases]
        check.add_row("errors relative to the largest state", heading, [name, *cells])


def _error(
    check: Check,
    model: Any,
    back_end: BackEnd,
    tau: Any,
    lengths: Sequence[int],
    expected: Any,
) -> float | str:
    """Return the error of an injected model, and see that it is as before afterwards.

    Returns:
        max |difference| / max |expected|; or in words why there is none: the forced kernel cannot
        do this, or the proof refuses it.
    """
    import torch

    import lcbench
    from lcbench.errors import InjectionError

    with back_end.chosen():
        try:
            before = _states(model, lengths, check.device)
            with lcbench.inject(model, tau) as injection:
                injection.role = "query"
                got = _states(model, lengths, check.device)
                injection.check()
        except (RuntimeError, InjectionError) as error:
            if back_end.kernel is not None and any(sign in str(error) for sign in _NO_KERNEL_SIGNS):
                return _NO_KERNEL
            if isinstance(error, InjectionError):
                print(error, flush=True)
                return _REFUSED_CALLS
            raise
        restored = torch.equal(_states(model, lengths, check.device), before)
    kind = type(model).__name__
    check.require(restored, f"{kind}, {back_end.name}: not as it was before the injection")
    return float((got - expected).abs().max() / expected.abs().max())


def _large_logits(check: Check, back_ends: Sequence[BackEnd]) -> None:
    """Measure errors where logits are as large as 50: they set the bound, and are not judged."""
    import exactness
    import torch

    import lcbench
    from lcbench.errors import InjectionError

    heading = ["architecture, dtype, back end", "τ 1", "τ 0.8", "τ 0.1"]
    for architecture in ("BERT", "T5"):
        for dtype in _LIMITS:
            kind = getattr(torch, dtype)
            if not check.has_time(f"large logits, {architecture} in {dtype}", 3.0):
                continue
            for back_end in _back_ends_of(architecture, back_ends):
                cells = []
                for tau in (1.0, 0.8, 0.1):
                    exact = _enlarged(architecture)
                    model = _enlarged(architecture).to(kind).to(check.device)
                    model.set_attn_implementation(back_end.implementation)
                    exact = exact.double() if dtype == "float32" else exact.to(kind)
                    taus = _taus(str(tau), _RAGGED)
                    with exactness.reference_attention(exact, taus, False):
                        expected = _states(exact, _RAGGED, "cpu")
                    try:
                        with lcbench.inject(model, tau) as injection:
                            got = _states(model, _RAGGED, check.device)
                            proof = injection.proof.largest_error
                    except InjectionError:
                        cells.append("refused")
                        continue
                    error = float((got - expected).abs().max() / expected.abs().max())
                    cells.append(f"{error:.1e} (proof {proof:.1e})")
                name = f"{architecture}, {dtype}, {back_end.name}"
                check.add_row("errors with logits of 50", heading, [name, *cells])


def _changed_attention(check: Check, back_ends: Sequence[BackEnd]) -> None:
    """Compare what changes attention besides τ with itself in float32 on the CPU.

    There, tests compare it with its formula.
    """
    import torch

    heading = ["architecture, dtype, back end", *_CHANGES]
    for architecture in ("BERT", "Mistral"):
        expected = {}
        for change in _CHANGES:
            exact = _make(architecture, **_wider(architecture, change))
            exact.set_attn_implementation("sdpa")
            if _change(exact, change):
                expected[change] = _states(exact, _RAGGED, "cpu")
        for dtype in _LIMITS:
            if not check.has_time(f"changed attention, {architecture} in {dtype}", 3.0):
                continue
            for back_end in _back_ends_of(architecture, back_ends):
                name = f"{architecture}, {dtype}, {back_end.name}"
                cells = []
                for change in _CHANGES:
                    if change not in expected:
                        cells.append("–")
                        continue
                    model = _make(architecture, **_wider(architecture, change))
                    model = model.to(getattr(torch, dtype)).to(check.device)
                    model.set_attn_implementation(back_end.implementation)
                    _change(model, change)
                    got = _states(model, _RAGGED, check.device)
                    wanted = expected[change]
                    error = float((got - wanted).abs().max() / wanted.abs().max())
                    cells.append(f"{error:.1e}")
                    limit = _LIMITS[dtype]
                    check.require(error <= limit, f"{name}, {change}: {error:.1e} > {limit:.0e}")
                check.add_row("errors of changed attention", heading, [name, *cells])


def _wider(architecture: str, change: str) -> dict[str, int]:
    """Return a window that shows the distances which SelfExtend changes."""
    is_windowed = architecture == "Mistral" and change == "selfextend"
    return {"sliding_window": 80} if is_windowed else {}


def _change(model: Any, change: str) -> bool:
    """Change a model's attention; False if its architecture does not allow that."""
    from lcbench.repair.extension import Extension
    from lcbench.tempscale.attnscale import AttnScale
    from lcbench.tempscale.calibrate import Calibration
    from lcbench.tempscale.change import ChangedAttention

    if change == "selfextend":
        if model.config.model_type != "mistral":
            return False
        Extension("selfextend", 96, group=3, neighbors=16).apply(model)
        return True
    part = AttnScale(0.7) if change == "attnscale" else Calibration(8, 0.6, "all")
    ChangedAttention(model, change, lambda layers: [part] * layers)
    return True


def _enlarged(architecture: str) -> Any:
    """Return a model whose largest logit of attention is 50 in each layer."""
    import torch

    model = _make(architecture)
    pairs = []
    for name, module in model.named_modules():
        parent, _, last = name.rpartition(".")
        if last in ("query", "q"):
            pairs.append(
                (module, model.get_submodule(f"{parent}.{'key' if last == 'query' else 'k'}"))
            )
    for query, key in pairs:
        with _outputs(query) as queries, _outputs(key) as keys:
            _states(model, _RAGGED, "cpu")
        # T5 does not divide its logits by the root of the head's size.
        scale = 1.0 if architecture == "T5" else 64**-0.5
        by_head = [one[0].unflatten(-1, (2, 64)).transpose(1, 2) for one in (queries, keys)]
        largest = float((scale * by_head[0] @ by_head[1].transpose(-1, -2)).abs().max())
        with torch.no_grad():
            for weight in query.parameters():
                weight *= _LARGE_LOGIT / largest
    return model


@contextmanager
def _outputs(module: Any) -> Iterator[list[Any]]:
    """Collect what a module returns."""
    outputs: list[Any] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


def _pooling(check: Check) -> None:
    """Compare means of texts without padding in half precision with float64.

    lcbench's are required to be right; those of sentence-transformers show why it has its own.
    """
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    from lcbench.encode.unpadded import pool

    pooling = Pooling(64, pooling_mode="mean")
    lengths = [16, _POOLED_TOKENS, 100]
    generator = torch.Generator().manual_seed(0)
    exact = 0.3 + 0.5 * torch.randn(sum(lengths), 64, generator=generator)
    for dtype in ("bfloat16", "float16"):
        states = exact.to(getattr(torch, dtype))
        ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        features = {
            "token_embeddings": states[None].to(check.device),
            "cu_seq_lens_q": ends.to(check.device),
        }
        wanted = torch.stack([part.double().mean(0) for part in states.split(lengths)])
        means = {
            "sentence-transformers": pooling(dict(features))["sentence_embedding"],
            "lcbench": pool(pooling, features["token_embeddings"], features)[0],
        }
        for whose, mean in means.items():
            error = float(((mean.double().cpu() - wanted).norm(dim=1) / wanted.norm(dim=1)).max())
            name = f"mean of {_POOLED_TOKENS} tokens without padding, {dtype}, {whose}, error"
            check.measure(name, error)
            if whose == "lcbench":
                check.require(error <= _POOLING_LIMIT, f"{name}: {error:.1e}")


def _unpadded_kernels(check: Check) -> None:
    """Compare torch's kernels for texts without padding with the formula, at a scale of 1 / τ."""
    import torch

    lengths, heads, size, tau = [300, 17, 512, 1], 12, 64, 0.8
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(check.device)
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(3, sum(lengths), heads, size, generator=generator)
    scale = size**-0.5 / tau
    for dtype in _LIMITS:
        parts = exact.to(getattr(torch, dtype))
        query, key, value = parts.to(check.device)
        if dtype == "float32":
            got = torch.ops.aten._efficient_attention_forward(
                *(query[None], key[None], value[None], None, ends, ends),
                *(max(lengths), max(lengths), 0.0, 0, False),
                scale=scale,
            )[0][0]
        else:
            got = torch.ops.aten._flash_attention_forward(
                *(query, key, value, ends, ends, max(lengths), max(lengths), 0.0, False, False),
                scale=scale,
            )[0]
        wanted = []
        for q, k, v in zip(*(part.double().split(lengths) for part in parts), strict=True):
            weights = torch.softmax(scale * torch.einsum("qhd,khd->hqk", q, k), dim=-1)
            wanted.append(torch.einsum("hqk,khd->qhd", weights, v))
        expected = torch.cat(wanted)
        error = float((got.double().cpu() - expected).abs().max() / expected.abs().max())
        check.measure(f"kernel without padding, {dtype}, error", error)
        check.require(error <= _LIMITS[dtype], f"unpadded kernel, {dtype}: error {error:.1e}")
