"""Roles of texts (query, document, or None) in sentence-transformers models.

mteb encodes queries with `encode_query` and documents with `encode_document`, which hand `task=` to
every part of the model; texts of tasks that have neither get plain `encode`. Most models ignore it.
This module finds out which do not, and where a role is routed to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.system import thirdparty
from lcbench.tempscale.policy import Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def task_of(role: Role | None) -> dict[str, str]:
    """Return the task that `SentenceTransformer.encode` passes for a role."""
    return {} if role is None else {"task": role}


def depends_on_role(model: SentenceTransformer) -> bool:
    """Return whether a text's tokens or embedding may depend on its role.

    A module of another library that could look at the role counts as one that does.
    """
    from sentence_transformers.base.modules import Router, Transformer

    first: Any = model[0]
    if type(first) is not Transformer:
        return True
    if any(limit is not None for limit in lengths_by_role(model).values()):
        return True
    if first.query_expansion is not None or thirdparty.forward_takes_task(first):
        return True
    if "message" in first.modality_config and thirdparty.chat_template_takes_task(first):
        return True
    of_module = model.module_kwargs or {}
    return any(
        isinstance(module, Router)
        or "task" in getattr(module, "forward_kwargs", ())
        or "task" in of_module.get(name, ())
        for name, module in model.named_children()
    )


def tokens_of_chat(model: SentenceTransformer) -> tuple[int, int] | None:
    """Return how many tokens a short text has as a message of a chat, and by itself.

    None: sentence-transformers reads texts as they are, and not by the chat template of the
    tokenizer. It goes by one if the model's files do not say otherwise.
    """
    from sentence_transformers.base.modules import Transformer

    first: Any = model[0]
    if not isinstance(first, Transformer) or "message" not in first.modality_config:
        return None
    text = "a text"
    as_message: Any = model.preprocess([text])["input_ids"]
    return as_message.numel(), len(first.tokenizer(text)["input_ids"])


def lengths_by_role(model: SentenceTransformer) -> dict[str, int | None]:
    """Return the windows of a model by role; None: the window of all texts.

    A fixed query expansion brings every query to its length, whatever other window there is.
    """
    first: Any = model[0]
    expansion = getattr(first, "query_expansion", None) or {}
    fixed = expansion.get("length") if expansion.get("strategy") == "fixed" else None
    return {
        "query": fixed or getattr(first, "query_length", None),
        "document": getattr(first, "document_length", None),
    }


def query_window_key(model: SentenceTransformer) -> str:
    """Return the key of sentence_bert_config.json that sets the window of queries."""
    expansion = getattr(model[0], "query_expansion", None) or {}
    return "query_expansion.length" if expansion.get("strategy") == "fixed" else "query_length"


def check_windows(model: SentenceTransformer, asked: str, name: str) -> None:
    """Check that a model has no windows by role, which a key for all texts would not change.

    Args:
        model: loaded.
        asked: the key and its value.
        name: the model's name, for messages.

    Raises:
        RequestError: it has.
    """
    own = [f"{role}: {n}" for role, n in lengths_by_role(model).items() if n is not None]
    if own:
        raise RequestError(
            f"{asked}: {name} has separate windows by role ({', '.join(own)} tokens), which this "
            f"key does not change; omit it, or change {query_window_key(model)} and "
            "document_length in its sentence_bert_config.json."
        )


def cap_lengths(model: SentenceTransformer, positions: int, name: str) -> None:
    """Limit a model's windows by role to its positions.

    Args:
        model: loaded.
        positions: the most tokens that it has positions for.
        name: the model's name, for messages.

    Raises:
        RequestError: its queries are expanded beyond them.
    """
    first: Any = model[0]
    expansion = getattr(first, "query_expansion", None)
    if expansion is not None and expansion["length"] > positions:
        raise RequestError(
            f"{name}: its queries are expanded to {expansion['length']} tokens "
            "(query_expansion.length in its sentence_bert_config.json), and it has positions for "
            f"{positions}. Lower it."
        )
    for role in ("query", "document"):
        length = getattr(first, f"{role}_length", None)
        if length is not None and length > positions:
            setattr(first, f"{role}_length", positions)


def input_module(model: SentenceTransformer, role: Role | None) -> Any:
    """Return the module that tokenises the texts of a role."""
    from sentence_transformers.base.modules import Router

    module: Any = model[0]
    while isinstance(module, Router):
        routes: Any = module.sub_modules
        module = routes[thirdparty.route_of(module, role)][0]
    return module


def check_routes(model: SentenceTransformer, roles: Collection[Role | None], name: str) -> None:
    """Check that each role is routed through a transformer.

    Args:
        model: loaded.
        roles: roles of the texts to be encoded.
        name: the model's name, for messages.

    Raises:
        RequestError: a Router has no route for one of the roles, or one without attention.
    """
    from transformers import PreTrainedModel

    for role in roles:
        passed = list(_passed(model, role, name))
        if any(
            isinstance(inner, PreTrainedModel) for module in passed for inner in module.modules()
        ):
            continue
        kinds = ", ".join(type(module).__name__ for module in passed)
        texts = {"query": "queries", "document": "documents"}.get(role or "", "other texts")
        raise RequestError(
            f"{name}: its Router sends {texts} through {kinds}, which has no attention, so no "
            "temperature can be applied to them."
        )


def _passed(model: SentenceTransformer, role: Role | None, name: str) -> Iterator[Any]:
    """Yield the modules that process a text of a role."""
    from sentence_transformers.base.modules import Router

    waiting: list[Any] = list(model.children())
    while waiting:
        module = waiting.pop(0)
        if not isinstance(module, Router):
            yield module
            continue
        try:
            route = thirdparty.route_of(module, role)
        except ValueError as error:
            texts = (
                "texts that are neither queries nor documents (those of STS, classification, "
                "clustering)"
                if role is None
                else f"a {role}"
            )
            raise RequestError(
                f"{name}: its Router has no route for {texts} and no default_route; its routes: "
                f"{', '.join(module.sub_modules)}. Choose retrieval tasks with tasks=, or set "
                "default_route in its router_config.json."
            ) from error
        routes: Any = module.sub_modules
        waiting = [*routes[route], *waiting]
