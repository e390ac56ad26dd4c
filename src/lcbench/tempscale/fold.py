"""Builds a temperature into a model's weights, so that it runs without lcbench.

softmax((scale · QKᵀ + bias) / τ) is the same attention with the queries' projection divided by τ,
each head's rows by its own, and a position bias divided as well. Where queries are normalised after
their projection (QK-norm), the norm's weight is divided instead; where logits are capped (Gemma 2),
the cap too. Policies that weights cannot express are refused with the reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lcbench.errors import RequestError
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import ByRole, ModelShape, Policy
from lcbench.tempscale.transformer import find_transformer, shape_of

# In configurations and layers.
_CAP = "attn_logit_softcapping"
# What the architectures call the projection of the queries.
_QUERY = ("query", "q", "q_lin", "q_proj", "query_proj")


def fold(model: nn.Module, policy: Policy) -> Policy:
    """Divide a model's weights in place so that it computes attention at `policy` by itself.

    Args:
        model: a `SentenceTransformer` or a `PreTrainedModel`, not under injection.
        policy: a constant, or one by layer or head.

    Returns:
        The policy, simplified for this model.

    Raises:
        RequestError: the policy cannot be expressed in this model's weights; the message says why,
            and the model is unchanged.
        InjectionError: the model's attention temperature cannot be set at all.
    """
    shape = shape_of(model)
    policy = policy.resolve(shape)
    refuse_by_text(policy)
    transformer = find_transformer(model)
    with Injection(model, policy) as injection:
        names, taus = zip(*injection.of_layers.items(), strict=True)
    config: Any = transformer.config
    by_head = isinstance(taus[0], tuple)
    by_layer = len(set(taus)) > 1
    refuse_shared_bias(policy, replace(shape, layers=len(taus)))
    if (by_head or by_layer) and getattr(config, _CAP, None) is not None:
        raise RequestError(
            f"tau={policy.canonical}: the {'heads' if by_head else 'layers'} of "
            f"{type(transformer).__name__} share one cap of their logits, which cannot be divided "
            "differently for each."
        )
    layers = [transformer.get_submodule(name) for name in names]
    parts = [
        _query_parameters(layer, name, by_head=by_head)
        for layer, name in zip(layers, names, strict=True)
    ]
    with torch.no_grad():
        for layer, parameters, tau in zip(layers, parts, taus, strict=True):
            _divide_queries(layer, parameters, torch.tensor(tau, dtype=torch.float64))
        if not policy.keeps_bias:
            for name, module in transformer.named_modules():
                if name.rpartition(".")[2] == "relative_attention_bias":
                    # [buckets, heads]
                    of_heads = torch.tensor(taus[0], dtype=torch.float64)
                    module.weight /= of_heads.to(module.weight)
    if getattr(config, _CAP, None) is not None:
        config.attn_logit_softcapping /= taus[0]
        for layer in layers:
            layer.attn_logit_softcapping = config.attn_logit_softcapping
    return policy


def refuse_by_text(policy: Policy) -> None:
    """Refuse policies that give different texts different temperatures.

    Raises:
        RequestError: saying why.
    """
    if isinstance(policy, ByRole):
        raise RequestError(
            f"tau={policy.canonical}: a model has one set of weights, which would have to differ "
            "for queries and documents. Export two models, each at its own temperature."
        )
    if policy.by_length:
        raise RequestError(
            f"tau={policy.canonical}: a length-dependent temperature cannot be stored in weights; "
            "apply it at run time with lcbench.inject."
        )


def refuse_shared_bias(policy: Policy, shape: ModelShape) -> None:
    """Refuse policies by layer that would divide the one position bias of all layers.

    Args:
        policy: resolved for the model.
        shape: the model's.

    Raises:
        RequestError: saying why.
    """
    by_layer = len(set(policy.of_layers(shape.layers or 1))) > 1
    if by_layer and shape.position_bias and not policy.keeps_bias:
        raise RequestError(
            f"tau={policy.canonical}: all layers of this model share one position bias, which "
            "cannot be divided differently for each; use tau_bias=kept."
        )


def _query_parameters(layer: nn.Module, name: str, *, by_head: bool) -> list[nn.Parameter]:
    """Return the parameters that the queries of a layer are proportional to."""
    norm = getattr(layer, "q_norm", None)
    if isinstance(norm, nn.Module) and isinstance(getattr(norm, "weight", None), nn.Parameter):
        if by_head:
            raise RequestError(
                f"{name} ({type(layer).__name__}) normalises the queries of all heads with the "
                "same weights, which cannot be divided differently for each head."
            )
        return [norm.weight]  # type: ignore[list-item]
    found = [getattr(layer, attribute, None) for attribute in (*_QUERY, "Wqkv")]
    projections = [part for part in found if isinstance(part, nn.Linear)]
    if len(projections) != 1:
        raise RequestError(
            f"{name} ({type(layer).__name__}): its query projection is unknown to lcbench, so no "
            "temperature can be written into its weights."
        )
    # DeBERTa's position queries, where they have a projection of their own.
    extra = getattr(layer, "pos_query_proj", None)
    if isinstance(extra, nn.Linear):
        projections.append(extra)
    return [
        parameter
        for projection in projections
        for parameter in projection.parameters(recurse=False)
    ]


def _divide_queries(layer: nn.Module, parameters: list[nn.Parameter], tau: Tensor) -> None:
    """Divide by a number, or the rows of each head by its own."""
    norm: Any = getattr(layer, "q_norm", None)
    if parameters[0] is getattr(norm, "weight", None):
        queries = torch.linspace(-1, 1, norm.weight.numel()).view_as(norm.weight)
        multiply_weight(norm, 1 / float(tau), queries)
        return
    for parameter in parameters:
        # A joint projection holds queries, keys and values, in this order.
        count = parameter.shape[0] // 3 if hasattr(layer, "Wqkv") else parameter.shape[0]
        rows = parameter[:count]
        if tau.dim():
            # Each head has as many rows, one after the other.
            by_head = rows.view(len(tau), -1)
            by_head /= tau[:, None].to(parameter)
        else:
            rows /= tau.to(parameter)


def multiply_weight(module: Any, factor: float, example: Tensor) -> None:
    """Change a module's weight in place, so that its output is multiplied by a factor.

    A bias is left as it is. Some norms (Gemma) multiply by 1 + weight: these return something for a
    weight of zero.

    Args:
        module: a norm or a linear layer, with the parameter `weight`.
        factor: factor of the output.
        example: input of the module, not zero.
    """
    weight = module.weight
    at_zero, at_one = (
        functional_call(module, {"weight": torch.full_like(weight, value)}, (example.to(weight),))
        for value in (0.0, 1.0)
    )
    bias = 0.0 if getattr(module, "bias", None) is None else module.bias
    added = round(float((at_zero - bias).abs().max() / (at_one - at_zero).abs().max()))
    weight.copy_(factor * (added + weight) - added)
