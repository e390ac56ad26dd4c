"""Chooses a text's prompt or instruction: none, the model's own, or from mteb's registry.

The registry's rules are mteb's own (`AbsEncoder`); here they are asked, not written again, for the
two ways in which mteb loads a sentence-transformers model. Any other is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
# Of what mteb loads a model with: what is no matter of prompts, and settled by the model's config
# or the protocol here.
_SETTLED = frozenset({"trust_remote_code", "model_kwargs", "device", "max_seq_length"})


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
    if prompts == "registry":
        return f"prompts: mteb's for {name}, or its own if mteb's registry does not have it"
    if not own:
        return None if prompts == "none" else f"prompts: none, since {name} has none of its own"
    listed = ", ".join(own)
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
    rules = _registry_rules(name)
    window = None if rules is None else rules.window
    if window is not None and window != model.max_seq_length:
        raise RequestError(
            f"protocol.prompts=registry: mteb reads {window} tokens of a text with {name}, which "
            f"reads {model.max_seq_length} here: model.window={window}, or protocol=paper."
        )
    if rules is not None and rules.instructions is not None:
        return rules.instructions
    return _named_prompts(model, None if rules is None else rules.prompts)


def check_registry(name: str) -> None:
    """Check that mteb's prompts for a model can be used, before the model is loaded.

    Args:
        name: the model's name on the hub.

    Raises:
        RequestError: mteb loads this model in a way that more than prompts would have to be taken
            from.
    """
    _registry_rules(name)


@dataclass(frozen=True)
class _RegistryRules:
    """A model's prompts in mteb's registry.

    Attributes:
        window: maximum number of tokens that mteb reads of a text; None: the model's own window.
        prompts: prompts by task, type of task or kind of text; None: the model's own.
        instructions: returns instructions that replace prompts; None: no instructions.
    """

    window: int | None
    prompts: dict[str, str] | None
    instructions: PromptOf | None = None


def _registry_rules(name: str) -> _RegistryRules | None:
    """Return a model's prompts in mteb's registry; None if it lacks the model."""
    import mteb
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    try:
        meta = mteb.get_model_meta(name, fetch_from_hf=False)
    except KeyError:
        return None
    loader: Any = meta.loader
    settings = dict(meta.loader_kwargs)
    window = settings.get("max_seq_length")
    for key in _SETTLED:
        settings.pop(key, None)
    if isinstance(loader, type) and issubclass(loader, SentenceTransformerEncoderWrapper):
        prompts = settings.pop("model_prompts", None)
        _refuse_others(name, settings)
        return _RegistryRules(window, prompts)
    if loader is InstructSentenceTransformerModel:
        instructions = _instructions(
            template=settings.pop("instruction_template", None),
            prompts=settings.pop("prompts_dict", None),
            priority=settings.pop("prompt_priority", None),
            to_documents=settings.pop("apply_instruction_to_passages", True),
        )
        _refuse_others(name, settings)
        return _RegistryRules(window, None, instructions)
    raise RequestError(
        f"protocol.prompts=registry: mteb loads {name} with code of its own "
        f"({getattr(loader, '__name__', loader)}), whose prompts are unknown to lcbench. "
        "protocol=model uses those of the model's own files, protocol=paper none."
    )


def _refuse_others(name: str, settings: dict[str, Any]) -> None:
    # True of what changes nothing: an option that is off.
    set_ = sorted(key for key, value in settings.items() if value not in (None, False))
    if settings.get("include_prompt") is False:
        set_.append("include_prompt")
    if set_:
        raise RequestError(
            f"protocol.prompts=registry: mteb loads {name} with settings beyond its prompts "
            f"({', '.join(set_)}), which are not applied here. protocol=model uses the "
            "prompts of the model's own files, protocol=paper none."
        )


def _named_prompts(model: SentenceTransformer, prompts: dict[str, str] | None) -> PromptOf:
    """Return the prompts of a dictionary by task, type of task and kind of text (mteb's order)."""
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


def _instructions(template: Any, prompts: Any, priority: Any, *, to_documents: bool) -> PromptOf:
    """Return the instructions of mteb's tasks in a model's template."""
    from mteb.models.abs_encoder import AbsEncoder, PromptSource
    from mteb.types import PromptType

    class Instructions(AbsEncoder):
        """mteb's rules for instructions, without a model."""

        instruction_template = template
        prompts_dict = prompts

        def encode(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    rules = Instructions()
    if priority is not None:
        rules.prompt_priority = [PromptSource.from_str(source) for source in priority]

    def prompt_of(task: TaskMetadata, prompt_type: PromptType | None) -> str:
        if prompt_type == PromptType.document and not to_documents:
            return ""
        return rules.get_task_instruction(task, prompt_type)

    return prompt_of
