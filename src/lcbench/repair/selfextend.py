"""SelfExtend (arXiv:2401.01325) for models with rotary positions, causal or not.

A key at a distance below w is attended to as before. Beyond, tokens share positions in groups of g:
token i attends to an earlier token j as if it were ⌊i/g⌋ − ⌊j/g⌋ + w − ⌊w/g⌋ tokens back, and to a
later one as if it were as many ahead. Rotations add up, so queries and keys, which the model has
rotated by their positions, are rotated on to those of their groups.

This is an attention implementation for `transformers`, like sdpa, with the name `IMPLEMENTATION`.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lcbench.errors import InjectionError
from lcbench.repair.restoring import Restoring
from lcbench.repair.rotary import rotary_of
from lcbench.system.thirdparty import attention_implementation, uses_attention_interface
from lcbench.tempscale import unpadded
from lcbench.tempscale.attend import PRODUCTS
from lcbench.tempscale.prove import active_probe, inside, run_probe
from lcbench.tempscale.transformer import find_transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lcbench.repair.stretch import Stretch

IMPLEMENTATION = "lcbench_selfextend"
Layout = Literal["halves", "pairs"]
_LAYOUTS: tuple[Layout, ...] = ("halves", "pairs")
# Largest error of a logit against float64, relative to the largest.
_TOLERANCE = 1e-5
# Logits that are computed at once, of all heads and texts: with 12 heads and 4,096 tokens, of 340
# queries; 64 MiB in float32.
_LOGITS_AT_ONCE = 2**24
# Tokens of the check, spread over the window.
_CHECKED_TOKENS = 48
_STATE = "_lcbench_selfextend"


@dataclass
class _Texts(threading.local):
    """The texts that a thread's forward pass is processing; None: none.

    Attributes:
        places: positions that the model rotates by, [texts, tokens].
        within: index of each token in its text, [texts, tokens].
    """

    places: Tensor | None = None
    within: Tensor | None = None


@dataclass
class Groups:
    """The positions of tokens in a model under SelfExtend.

    Attributes:
        group: g, tokens that share a position.
        neighbors: w, the distance from which on they do.
        frequencies: θ of each pair of rotated dimensions, as the model has them.
        layout: whether the two dimensions of a pair are half of them apart, or side by side.
        only_whole: whether layers with an attention window of their own stay as they are.
        texts: those that are being processed.
        calls: number of layers that have attended since it was reset.
    """

    group: int
    neighbors: int
    frequencies: Tensor
    layout: Layout
    only_whole: bool
    texts: _Texts = field(default_factory=_Texts)
    calls: int = 0

    def distances(self, within: Tensor, keys: Tensor) -> Tensor:
        """Return how far apart queries and keys count as: positive where the key is earlier.

        Args:
            within: index of each query's token in its text, [..., queries].
            keys: index of each key's token, [..., keys].

        Returns:
            [..., queries, keys]
        """
        g, w = self.group, self.neighbors
        one, other = within[..., :, None], keys[..., None, :]
        plain, grouped = one - other, one // g - other // g
        beyond = grouped + torch.where(plain > 0, 1, -1) * (w - w // g)
        return torch.where(plain.abs() < w, plain, beyond)

    def products(
        self, query: Tensor, key: Tensor, places: Tensor, within: Tensor, rows: slice
    ) -> Tensor:
        """Return the products of queries and keys at the distances that they count as.

        Args:
            query: [texts, heads, tokens, size], rotated by their positions.
            key: likewise.
            places: positions that they are rotated by, [texts, tokens].
            within: index of each token in its text, [texts, tokens].
            rows: queries to multiply.

        Returns:
            [texts, heads, rows, tokens]
        """
        shared = within // self.group
        shifted = shared + self.neighbors - self.neighbors // self.group
        far, near = (self._moved(key, places, to) for to in (shared, shifted))
        query, of_rows, own = query[:, :, rows], places[:, rows], within[:, rows]
        earlier = self._moved(query, of_rows, shifted[:, rows]) @ far.transpose(-1, -2)
        later = self._moved(query, of_rows, shared[:, rows]) @ near.transpose(-1, -2)
        apart = own[:, None, :, None] - within[:, None, None, :]
        grouped = torch.where(apart > 0, earlier, later)
        return torch.where(apart.abs() < self.neighbors, query @ key.transpose(-1, -2), grouped)

    def _moved(self, states: Tensor, places: Tensor, to: Tensor) -> Tensor:
        """Return queries or keys rotated by other positions than those that the model took."""
        frequencies = self.frequencies.to(states.device)
        # The model rotates by the product in float32: its rounding error is taken back with it.
        taken = (places[..., None].float() * frequencies.float()).double()
        angles = to[..., None].double() * frequencies.double() - taken
        return rotated(states, angles[:, None], self.layout)


def rotated(states: Tensor, angles: Tensor, layout: Layout) -> Tensor:
    """Rotate pairs of dimensions by angles; dimensions beyond them stay.

    Args:
        states: [..., size]
        angles: [..., pairs], float64; broadcasts to the states.
        layout: see `Groups`.
    """
    kind = torch.promote_types(states.dtype, torch.float32)
    cos, sin = angles.cos().to(kind), angles.sin().to(kind)
    pairs = angles.shape[-1]
    turned, rest = states[..., : 2 * pairs].to(kind), states[..., 2 * pairs :]
    one, other = (
        (turned[..., :pairs], turned[..., pairs:])
        if layout == "halves"
        else (turned[..., 0::2], turned[..., 1::2])
    )
    parts = (one * cos - other * sin, other * cos + one * sin)
    joined = torch.cat(parts, -1) if layout == "halves" else torch.stack(parts, -1).flatten(-2)
    return torch.cat((joined.to(states.dtype), rest), dim=-1)


@torch.inference_mode(False)
@torch.no_grad()
def extend_by_groups(model: SentenceTransformer, extension: Stretch) -> Restoring:
    """Let a model attend to distant tokens by groups.

    Raises:
        InjectionError: its attention or its rotations cannot be reached, or do not give the
            expected products.
    """
    transformer: Any = find_transformer(model)
    written, kind = f"extend={extension.canonical}", type(transformer).__name__
    module, layer_type, parameters = rotary_of(transformer, extension, written)
    if parameters["rope_type"] in ("dynamic", "longrope"):
        raise InjectionError(
            f"{written}: {kind}'s rotary positions ({parameters['rope_type']}) go by the longest "
            "text of a batch."
        )
    if not uses_attention_interface(transformer):
        raise InjectionError(f"{written}: {kind} does not use transformers' attention interface.")
    start = extension.start or int(transformer.config.max_position_embeddings)
    group, neighbors = extension.groups(start)
    prefix = f"{layer_type}_" if layer_type else ""
    frequencies = getattr(module, f"{prefix}inv_freq").clone()
    groups, error = _checked(
        *(transformer, module, layer_type, frequencies),
        Groups(group, neighbors, frequencies, "halves", layer_type is not None),
        extension.window,
        written,
    )
    original = attention_implementation(transformer.config) or "eager"
    applied = Restoring()
    try:
        applied.shadow(transformer, "forward", _watched(transformer.forward, groups))
        for layer in transformer.modules():
            applied.shadow(layer, _STATE, groups)
        transformer.set_attn_implementation(_register())
        applied.add(lambda: transformer.set_attn_implementation(original))
        applied.read(transformer, extension.window)
        probe = run_probe(transformer)
        expected = getattr(transformer.config, "num_hidden_layers", None)
        if probe.outside or groups.calls != expected:
            raise InjectionError(
                f"{written}: {groups.calls} of {expected} layers of {kind} attend by groups"
                + (f"; {probe.outside[0]} computes attention itself." if probe.outside else ".")
            )
    except BaseException:
        applied.remove()
        raise
    applied.proof = {
        "window": extension.window,
        "positions": start,
        "group": group,
        "neighbors": neighbors,
        "rotation": groups.layout,
        "largest_error": error,
        **({"layers": layer_type} if layer_type else {}),
    }
    return applied


def _checked(
    transformer: Any,
    module: Any,
    layer_type: str | None,
    frequencies: Tensor,
    groups: Groups,
    window: int,
    written: str,
) -> tuple[Groups, float]:
    """Return the groups with the layout of the model's rotations, and the largest error.

    Random queries and keys are rotated by the model's own function, at positions all over the
    window. Their products are compared with those of the unrotated ones at the expected distances,
    in float64; of neighbors, with the model's own products.
    """
    function = getattr(sys.modules[type(transformer).__module__], "apply_rotary_pos_emb", None)
    device, size = frequencies.device, 2 * len(frequencies)
    size = max(size, int(getattr(transformer.config, "head_dim", None) or size))
    spread = torch.linspace(0, window - 1, _CHECKED_TOKENS - 4, dtype=torch.float64).long()
    edge = groups.neighbors
    places = torch.cat([spread, torch.tensor([1, edge - 1, edge, edge + 1])])
    places = places.clamp(0, window - 1).unique().to(device)[None]
    draw = torch.Generator().manual_seed(0)
    query, key = (
        torch.randn(1, 1, places.shape[1], size, generator=draw).to(device) for _ in range(2)
    )
    of_layers = {"layer_type": layer_type} if layer_type else {}
    errors: dict[Layout, float] = {}
    try:
        waves = module(query, places, **of_layers)
        turned = function(query, key, *waves)  # type: ignore[misc]
    except (TypeError, ValueError, RuntimeError) as problem:
        raise InjectionError(
            f"{written}: how {type(transformer).__name__} rotates queries and keys is not known "
            f"({type(problem).__name__}: {problem})."
        ) from problem
    # YaRN multiplies both by a factor.
    scale = float(turned[0].norm() / query.norm()) ** 2 if len(frequencies) * 2 == size else 1.0
    plain = turned[0].double() @ turned[1].double().transpose(-1, -2)
    apart = groups.distances(places, places)
    is_near = (places[..., :, None] - places[..., None, :]).abs() < groups.neighbors
    for layout in _LAYOUTS:
        groups.layout = layout
        expected = torch.where(
            is_near[:, None], plain, scale * _at_distances(query, key, apart, frequencies, layout)
        )
        # In float64, since the protocol may have products in TF32.
        found = groups.products(turned[0].double(), turned[1].double(), places, places, slice(None))
        errors[layout] = float((found - expected).abs().max() / expected.abs().max())
    groups.layout = min(_LAYOUTS, key=errors.__getitem__)
    if not errors[groups.layout] <= _TOLERANCE:
        raise InjectionError(
            f"{written}: {type(transformer).__name__} rotates queries and keys in another way than "
            f"expected (products differ by {errors[groups.layout]:.1e})."
        )
    return groups, errors[groups.layout]


def _at_distances(
    query: Tensor, key: Tensor, apart: Tensor, frequencies: Tensor, layout: Layout
) -> Tensor:
    """Return products of unrotated queries and keys at distances, in float64: [1, 1, n, n]."""
    angles = -apart[:, None, :, :, None].double() * frequencies.double()
    moved = rotated(key.double()[:, :, None].expand(-1, -1, key.shape[2], -1, -1), angles, layout)
    return (query.double()[:, :, :, None] * moved).sum(-1)


def _watched(forward: Any, groups: Groups) -> Any:
    """Return a forward pass that notes the positions of its tokens."""

    @functools.wraps(forward)
    def watched(input_ids: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        shown = kwargs.get("inputs_embeds") if input_ids is None else input_ids
        if shown is None:
            raise InjectionError("SelfExtend needs token ids or their embeddings.")
        tokens, mask = shown.shape[1], kwargs.get("attention_mask")
        row = torch.arange(tokens, device=shown.device).expand(shown.shape[:2])
        places = kwargs.get("position_ids")
        texts = groups.texts
        texts.places = row if places is None else places.expand(shown.shape[:2])
        bounds = kwargs.get("cu_seq_lens_q")
        if bounds is not None:
            begins = bounds[unpadded.text_of_token(bounds, tokens)].long()
            texts.within = row - begins
        elif isinstance(mask, Tensor) and mask.dim() == 2:
            texts.within = (mask.cumsum(dim=1) - 1).clamp(min=0)
        else:
            texts.within = row
        try:
            return forward(input_ids, *args, **kwargs)
        finally:
            texts.places = texts.within = None

    return watched


def _register() -> str:
    """Make the implementation known to transformers, and return its name."""
    if IMPLEMENTATION not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(IMPLEMENTATION, attend)
    if IMPLEMENTATION not in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(IMPLEMENTATION, unpadded.padding_mask)
    PRODUCTS[IMPLEMENTATION] = _products_of
    return IMPLEMENTATION


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute a layer's attention; arguments and result are those of `unpadded.attend`.

    Raises:
        InjectionError: the layer changes its logits in another way, or runs outside the model.
    """
    groups: Groups = getattr(module, _STATE)
    groups.calls += 1
    with inside(active_probe()):
        if groups.only_whole and sliding_window is not None:
            return unpadded.attend(
                *(module, query, key, value, attention_mask),
                scaling=scaling,
                is_causal=is_causal,
                sliding_window=sliding_window,
                cu_seq_lens_q=cu_seq_lens_q,
                **kwargs,
            )
        for name in ("position_bias", "softcap", "s_aux"):
            if kwargs.get(name) is not None:
                raise InjectionError(
                    f"{type(module).__name__} has a {name}, which SelfExtend does not know."
                )
        places, within = _positions_of(groups, query)
        size, heads = query.shape[-1], query.shape[1]
        key, value = (one.repeat_interleave(heads // one.shape[1], dim=1) for one in (key, value))
        scale = size**-0.5 if scaling is None else scaling
        causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        output = torch.empty_like(query)
        for cut in _texts(cu_seq_lens_q, query.shape[2]):
            parts = (query[:, :, cut], key[:, :, cut], value[:, :, cut])
            where = (places[:, cut], within[:, cut])
            for rows in _blocks(parts[0]):
                logits = groups.products(*parts[:2], *where, rows) * scale
                allowed = (
                    _allowed(where[1], rows, causal, sliding_window)
                    if attention_mask is None
                    else attention_mask[:, :, rows]
                )
                logits = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
                weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
                start = cut.start + rows.start
                output[:, :, start : start + logits.shape[2]] = weights @ parts[2]
        return output.transpose(1, 2).contiguous(), None


def _products_of(module: nn.Module, query: Tensor, key: Tensor) -> Tensor:
    """Return the products of a layer's queries and keys; see `attend.PRODUCTS`."""
    groups: Groups = getattr(module, _STATE)
    if groups.only_whole and getattr(module, "sliding_window", None) is not None:
        return query @ key.transpose(-1, -2)
    return groups.products(query, key, *_positions_of(groups, query), slice(None))


def _positions_of(groups: Groups, query: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and indices of the tokens that this thread's forward pass processes."""
    places, within = groups.texts.places, groups.texts.within
    if places is None or within is None or places.shape[1] != query.shape[2]:
        raise InjectionError(
            "A layer under SelfExtend was run without going through its model's forward."
        )
    # Layers may be on other GPUs than the token ids.
    return places.to(query.device), within.to(query.device)


def _texts(bounds: Tensor | None, tokens: int) -> Iterator[slice]:
    """Yield the tokens of each text in a row without padding; else all tokens."""
    if bounds is None:
        yield slice(0, tokens)
        return
    for start, end in pairwise(bounds.tolist()):
        yield slice(start, end)


def _blocks(query: Tensor) -> Iterator[slice]:
    """Yield as many queries as give `_LOGITS_AT_ONCE` logits."""
    texts, heads, tokens, _ = query.shape
    step = max(1, _LOGITS_AT_ONCE // (texts * heads * max(1, tokens)))
    for start in range(0, tokens, step):
        yield slice(start, min(start + step, tokens))


def _allowed(within: Tensor, rows: slice, causal: bool, window: int | None) -> Tensor:
    """Return which keys of a text without padding each query may attend to."""
    apart = within[:, None, rows, None] - within[:, None, None, :]
    allowed = torch.ones_like(apart, dtype=torch.bool) if window is None else apart.abs() < window
    return allowed & (apart >= 0) if causal else allowed
