"""Chooses a text's prompt or instruction: none, the model's own, or from mteb's registry."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from sentence_transformers import SentenceTransformer

    from lcbench.tempscale.policy import Role

# The prompt of a task's texts: of queries, of documents, or (None) of a task that has neither.
PromptOf = Callable[["TaskMetadata", "PromptType | None"], str]

# What sentence-transformers' own encode_document takes where it is given no prompt.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def no_prompt(task: TaskMetadata, prompt_type: PromptType | None) -> str:
    """Return no prompt."""
    return ""


def model_prompts(model: SentenceTransformer) -> PromptOf:
    """Return the prompts in a model's files, as mteb applies them.

    Args:
        model: loaded; `config_sentence_transformers.json` names its prompts.
    """
    return _named_prompts(model, None)


def describe_prompts(prompts: str, name: str, model: SentenceTransformer) -> str | None:
    """Return a line about the prompts used, and about unused prompts of the model.

    Args:
        prompts: source of the protocol's prompts: `none`, `model` or `registry`.
        name: the model's name.
        model: loaded.

    Returns:
        None if no prompts were requested and the model has none.
    """
    own = sorted(key for key, prompt in (model.prompts or {}).items() if prompt)
    listed = ", ".join(own)
    if prompts == "registry":
        from lcbench.encode.registry import registered

        if registered(name) is not None:
            return f"prompts: mteb's for {name}"
        if own:
            return f"prompts: {name}'s own ({listed}), since mteb's registry does not have it"
        return f"prompts: none, since {name} is not in mteb's registry and has none of its own"
    if not own:
        return None if prompts == "none" else f"prompts: none, since {name} has none of its own"
    if prompts == "model":
        return f"prompts: {name}'s own ({listed}); protocol=paper uses none"
    return f"prompts: none ({name} has its own: {listed}; protocol=model uses them)"


def check_room(
    name: str,
    model: SentenceTransformer,
    prompt_of: PromptOf,
    tasks: Iterable[tuple[TaskMetadata, PromptType | None]],
) -> None:
    """Check that prompts leave room for text, so that embeddings differ.

    Args:
        name: the model's name, for the message.
        model: loaded, its window set.
        prompt_of: returns the prompt of the texts of a task.
        tasks: and which of their texts: queries, documents, or (None) those that are neither.

    Raises:
        RequestError: one fills the window with special tokens alone.
    """
    from lcbench.encode.encoder import role_of
    from lcbench.encode.roles import lengths_by_role, query_window_key
    from lcbench.encode.tokens import Tokenizer

    prompts = {(role_of(kind), prompt_of(task, kind)): task for task, kind in tasks}
    for (role, prompt), task in prompts.items():
        tokenizer = Tokenizer(model, role)
        if tokenizer.has_room(prompt):
            continue
        texts = {"query": "queries", "document": "documents"}.get(role or "", "texts")
        if lengths_by_role(model).get(role or "") is not None:
            key = query_window_key(model) if role == "query" else f"{role}_length"
            remedy = f"Raise {key} in its sentence_bert_config.json"
        else:
            remedy = "Raise model.window"
        what = f"the prompt {prompt!r}" if prompt else "an empty text"
        raise RequestError(
            f"{name}: the window for {texts} ({task.name}) is {tokenizer.window} tokens, and "
            f"{what} takes {tokenizer.count(prompt)}, special tokens included: all {texts} would "
            f"get the same embedding. {remedy}"
            + (", or use protocol.prompts=none." if prompt else ".")
        )


def registry_prompts(name: str, model: SentenceTransformer) -> PromptOf:
    """Return the prompts that mteb would use for a model.

    A model that the registry does not know gets those that its own files have, as mteb does it.

    Args:
        name: the model's name on the hub.
        model: loaded.

    Raises:
        RequestError: mteb loads this model in a way that more than prompts would have to be taken
            from, or reads another number of tokens with it.
    """
    from lcbench.encode.registry import registered

    found = registered(name)
    if found is None:
        return _named_prompts(model, None)
    if found.window is not None and found.window != model.max_seq_length:
        raise RequestError(
            f"protocol.prompts=registry: mteb reads {found.window} tokens of a text with {name}, "
            f"which reads {model.max_seq_length} here: model.window={found.window}, or "
            "protocol=paper."
        )
    if found.instructions is not None:
        return found.instructions
    return _named_prompts(model, found.prompts, found.otherwise)


def _named_prompts(
    model: SentenceTransformer, prompts: dict[str, str] | None, otherwise: str | None = None
) -> PromptOf:
    """Return the prompts of a dictionary by task, type of task and kind of text (mteb's order).

    Args:
        model: loaded.
        prompts: the dictionary; None: the model's own.
        otherwise: name of the prompt of texts that none suits; None: by their role alone.
    """
    from mteb.models.abs_encoder import AbsEncoder, get_prompt_name

    from lcbench.encode.encoder import role_of

    own: dict[str, Any] = dict(model.prompts or {})
    with warnings.catch_warnings():
        # Of names that it leaves out, with all that it would have taken, once a model.
        warnings.simplefilter("ignore")
        valid, _ = AbsEncoder.validate_task_to_prompt_name(
            prompts or own, raise_for_invalid_keys=False
        )
    # Explicit ones take the place of the model's own, where it has any.
    fallback = prompts if prompts and own else own

    def prompt_of(task: TaskMetadata, prompt_type: PromptType | None) -> str:
        chosen = get_prompt_name(valid, task, prompt_type)
        if valid and chosen is not None:
            return valid[chosen]
        if otherwise is not None:
            return fallback[otherwise] or ""
        return prompt_by_role(model, role_of(prompt_type), fallback)

    return prompt_of


def prompt_by_role(
    model: SentenceTransformer, role: Role | None, prompts: Mapping[str, Any] | None = None
) -> str:
    """Return the prompt of texts by their role alone, whatever their task.

    Args:
        model: loaded.
        role: role of the texts; None: neither queries nor documents.
        prompts: prompts by name; None: the model's own.
    """
    named = (model.prompts or {}) if prompts is None else prompts
    if role == "document":
        return next((named[one] or "" for one in _DOCUMENT_PROMPTS if one in named), "")
    if role == "query" and "query" in named:
        return named["query"] or ""
    default = model.default_prompt_name
    return "" if default is None else named.get(default) or ""


def prompts_by_role(model: SentenceTransformer) -> dict[Role, str]:
    """Return a model's own prompts of documents and queries, whatever their task."""
    roles: tuple[Role, ...] = ("query", "document")
    return {role: prompt_by_role(model, role) for role in roles}
