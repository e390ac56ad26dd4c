"""Applies extensions to models with rotary positions.

The frequencies in the model's rotary module are replaced by those that transformers' own functions
give for changed parameters. A model whose parameters differ by layer type (ModernBERT, Gemma 3) has
its layers of full attention changed; those with a window of their own never see a long distance.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from math import ceil, floor, log, pi, sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lcbench.errors import InjectionError
from lcbench.repair.restoring import Restoring
from lcbench.tempscale.transformer import find_transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

    from lcbench.repair.stretch import Stretch

# Largest error of a frequency against float64, relative to it; and of cos and sin. Measured: 1.6e-7
# and 7.5e-7 (θ of 10,000 to 1,000,000, heads of 64 and 128 dimensions).
_TOLERANCE = 2e-6
_TOLERANCE_OF_ROTATION = 1e-5
_CHECKED_POSITIONS = (0, 1, 16)
_FULL = "full_attention"
# Options that the kinds of parameters share.
_KEPT = ("rope_theta", "partial_rotary_factor")


@torch.inference_mode(False)
@torch.no_grad()
def extend_rotary(model: SentenceTransformer, extension: Stretch) -> Restoring:
    """Replace the frequencies of a model's rotary module.

    Raises:
        InjectionError: it has no rotary module of transformers' own make, or one that is scaled
            already, or it computes others than expected.
    """
    transformer = find_transformer(model)
    written = f"extend={extension.canonical}"
    module, layer_type, old = rotary_of(transformer, extension, written)
    config: Any = transformer.config
    prefix = f"{layer_type}_" if layer_type else ""
    frequencies: Tensor = getattr(module, f"{prefix}inv_freq")
    start = extension.start or int(config.max_position_embeddings)
    new = _parameters(extension, old, start, 2 * len(frequencies), written)
    changed = copy.deepcopy(config)
    changed.rope_parameters = {**config.rope_parameters, layer_type: new} if layer_type else new
    kind = new["rope_type"]
    # The module itself has the function for the plain kind.
    compute: Any = (
        module.compute_default_rope_parameters if kind == "default" else ROPE_INIT_FUNCTIONS[kind]
    )
    # Beyond the original positions: longrope's factors for long texts.
    beyond = {"seq_len": start + 1} if kind == "longrope" else {}
    found, factor = compute(
        changed,
        device=frequencies.device,
        **beyond,
        **({"layer_type": layer_type} if layer_type else {}),
    )
    # transformers 5.23 computes some of them on the CPU.
    found = found.to(frequencies.device)
    applied = Restoring()
    try:
        for name in (f"{prefix}inv_freq", f"{prefix}original_inv_freq"):
            if hasattr(module, name):
                applied.set(module, name, found.clone())
        applied.set(module, f"{prefix}attention_scaling", factor)
        # Kept as the plain kind, which nothing recomputes by the length of a batch.
        static = "default" if kind == "longrope" else kind
        kinds = {**module.rope_type, layer_type: static} if layer_type else static
        applied.set(module, "rope_type", kinds)
        if kind != "longrope":
            applied.set(config, "rope_parameters", changed.rope_parameters)
            applied.set(
                config,
                "max_position_embeddings",
                max(extension.window, config.max_position_embeddings),
            )
        applied.read(transformer, extension.window)
        applied.proof = _proof(module, layer_type, extension, old, new, start, factor, written)
    except BaseException:
        applied.remove()
        raise
    return applied


def rotary_of(
    transformer: PreTrainedModel, extension: Stretch, written: str
) -> tuple[Any, str | None, Mapping[str, Any]]:
    """Return a model's rotary module, the layer type that is changed, and its parameters.

    Raises:
        InjectionError: there is no such module, or none of its layers sees a distance beyond the
            positions that the model was made for.
    """
    found = [
        module
        for module in transformer.modules()
        if hasattr(module, "compute_default_rope_parameters") and hasattr(module, "rope_type")
    ]
    kind = type(transformer).__name__
    parameters = getattr(transformer.config, "rope_parameters", None)
    if len(found) != 1 or not isinstance(parameters, Mapping):
        raise InjectionError(
            f"{written}: {kind} has {len(found)} rotary modules of the form that transformers "
            "scales; it needs exactly one."
        )
    if "rope_type" in parameters:
        _check_reach(transformer.config, extension, parameters, written)
        return found[0], None, parameters
    of_full = parameters.get(_FULL)
    if not isinstance(of_full, Mapping) or not hasattr(found[0], f"{_FULL}_inv_freq"):
        raise InjectionError(
            f"{written}: {kind} has no layers of full attention with rotary positions; the others "
            "never see a long distance."
        )
    return found[0], _FULL, of_full


def _check_reach(
    config: Any, extension: Stretch, parameters: Mapping[str, Any], written: str
) -> None:
    """Refuse a model all layers of which have a window within the positions it was made for."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or ()
    if not isinstance(window, int) or not getattr(config, "use_sliding_window", True):
        return
    if _FULL in types:
        return
    start = int(
        extension.start
        or (extension.method == "longrope" and parameters.get("original_max_position_embeddings"))
        or config.max_position_embeddings
    )
    if window <= start:
        raise InjectionError(
            f"{written}: all layers have sliding_window={window}, so that no token sees another at "
            f"a distance beyond the {start} positions that an extension starts from."
        )


def _parameters(
    extension: Stretch,
    old: Mapping[str, Any],
    positions: int,
    dimensions: int,
    written: str,
) -> dict[str, Any]:
    """Return the rotary parameters of an extended model.

    Args:
        extension: which.
        old: its parameters without the extension.
        positions: number of positions that it was made for.
        dimensions: rotated dimensions of a head.
        written: the extension, for messages.

    Raises:
        InjectionError: the model's are scaled already, or lack what the method needs.
    """
    kind = old["rope_type"]
    if extension.method == "longrope":
        needed = ("long_factor", "short_factor", "original_max_position_embeddings")
        if missing := [name for name in needed if not old.get(name)]:
            raise InjectionError(
                f"{written}: longrope needs factors that were searched for this model "
                f"({', '.join(missing)} in its rope_parameters), which it does not have; yarn and "
                "ntk need none."
            )
        stated = old.get("factor") or positions / old["original_max_position_embeddings"]
        return {**old, "factor": stated}
    if kind != "default":
        raise InjectionError(
            f"{written}: the model's rotary positions are scaled already ({kind})."
            + (" extend={longrope: N} uses its factors." if kind == "longrope" else "")
        )
    new = {name: old[name] for name in _KEPT if old.get(name) is not None}
    if extension.method == "linear":
        return {**new, "rope_type": "linear", "factor": float(extension.factor(positions))}
    if extension.method == "yarn":
        factor = float(extension.factor(positions))
        return {
            **new,
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": positions,
        }
    scale, _ = extension.base_scale(positions, dimensions)
    return {**new, "rope_type": "default", "rope_theta": float(new["rope_theta"]) * scale}


def _proof(
    module: Any,
    layer_type: str | None,
    extension: Stretch,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    start: int,
    factor: float,
    written: str,
) -> dict[str, Any]:
    """Check the module's frequencies and rotations against float64.

    Raises:
        InjectionError: they are others.
    """
    prefix = f"{layer_type}_" if layer_type else ""
    found = getattr(module, f"{prefix}inv_freq").double().cpu()
    if extension.method == "longrope":
        start = int(old["original_max_position_embeddings"])
    expected, expected_factor = reference(
        extension, new if extension.method == "longrope" else old, start, 2 * len(found)
    )
    error = float(((found - expected) / expected).abs().max())
    places = torch.tensor([_CHECKED_POSITIONS], device=getattr(module, f"{prefix}inv_freq").device)
    of_layers = {"layer_type": layer_type} if layer_type else {}
    rotations = module(torch.zeros(1, device=places.device), places, **of_layers)
    angles = torch.tensor(_CHECKED_POSITIONS, dtype=torch.float64)[:, None] * expected
    of_rotation = 0.0
    for got, wave in zip(rotations, (angles.cos(), angles.sin()), strict=True):
        wave = wave * expected_factor
        layouts = (torch.cat((wave, wave), dim=-1), wave.repeat_interleave(2, dim=-1), wave)
        of_rotation = max(
            of_rotation,
            min(
                float((got[0].double().cpu() - one).abs().max())
                for one in layouts
                if one.shape == got[0].shape
            ),
        )
    if not (error <= _TOLERANCE and of_rotation <= _TOLERANCE_OF_ROTATION):
        raise InjectionError(
            f"{written}: {type(module).__name__} rotates by other frequencies than expected (they "
            f"differ by {error:.1e}, its rotations by {of_rotation:.1e}); the model is left as it "
            "was."
        )
    proof: dict[str, Any] = {
        "window": extension.window,
        "positions": start,
        "theta": new["rope_theta"],
        "largest_error": error,
        "largest_error_of_rotation": of_rotation,
    }
    if extension.method in ("linear", "yarn"):
        proof["factor"] = extension.factor(start)
    if extension.method == "ntk":
        scale, source = extension.base_scale(start, 2 * len(found))
        proof |= {"lambda": scale, "lambda_from": source}
    if factor != 1.0:
        # Both queries and keys are multiplied by it: logits are divided by this.
        proof["temperature"] = 1 / factor**2
    if layer_type is not None:
        proof["layers"] = layer_type
    return proof


def reference(
    extension: Stretch, old: Mapping[str, Any], start: int, dimensions: int
) -> tuple[Tensor, float]:
    """Return the frequencies of an extension in float64, and the factor of cos and sin.

    Args:
        extension: which.
        old: rotary parameters of the model.
        start: L, the number of positions that it was made for.
        dimensions: d, rotated dimensions of a head.

    Returns:
        θ_j for j = 0 … d/2 − 1, and the factor.
    """
    theta = float(old["rope_theta"])
    exponents = torch.arange(0, dimensions, 2, dtype=torch.float64) / dimensions
    plain = theta**-exponents
    factor = extension.factor(start)
    if extension.method == "linear":
        return plain / factor, 1.0
    if extension.method == "ntk":
        scale, _ = extension.base_scale(start, dimensions)
        return (theta * scale) ** -exponents, 1.0
    if extension.method == "longrope":
        stated = float(old.get("factor") or 0)
        scaled = torch.tensor(old["long_factor"], dtype=torch.float64)
        given = old.get("attention_factor")
        if given is None:
            given = sqrt(1 + log(stated) / log(start)) if stated > 1 else 1.0
        return plain / scaled, float(given)

    # YaRN (arXiv:2309.00071, section 3.2): dimensions that turn more than 32 times within L keep
    # their frequency, those that turn less than once are interpolated, between them a ramp.
    def dimension_of(turns: float) -> float:
        return dimensions * log(start / (turns * 2 * pi)) / (2 * log(theta))

    low = max(floor(dimension_of(32)), 0)
    high = min(ceil(dimension_of(1)), dimensions - 1)
    places = torch.arange(dimensions // 2, dtype=torch.float64)
    ramp = ((places - low) / (high - low or 0.001)).clamp(0, 1)
    return plain / factor * ramp + plain * (1 - ramp), 0.1 * log(factor) + 1.0
