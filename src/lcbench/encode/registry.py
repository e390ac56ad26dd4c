"""How mteb's registry has a model loaded and prompted.

The rules are mteb's own; here they are read, not written again, for the ways in which mteb loads a
sentence-transformers model: as it is, with instructions, and Qwen3's and Nomic's. Others are
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.hub.model_files import read_object, transformer_folder

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from sentence_transformers import SentenceTransformer

    from lcbench.hub.models import LocatedModel

# Settings that are no matter of prompts, and are settled by the model's config or the protocol
# here, or change no embedding: texts are encoded equally with padding on either side.
_SETTLED = frozenset(
    {"trust_remote_code", "model_kwargs", "device", "max_seq_length", "padding_side"}
)
_SPECIAL_TOKENS = ("bos", "eos")
# The models whose embeddings Nomic's wrapper scales by a layer norm without weights.
_LAYER_NORM = frozenset({"nomic-ai/nomic-embed-text-v1.5"})


@dataclass(frozen=True)
class Registered:
    """A model in mteb's registry.

    Attributes:
        window: maximum number of tokens that mteb reads of a text; None: the model's own window.
        prompts: prompts by task, type of task or kind of text; None: the model's own.
        otherwise: name of the prompt of texts that none of these suits; None: no prompt.
        instructions: returns instructions that replace prompts; None: no instructions.
        special_tokens: special tokens that mteb adds to every text, in place of the tokenizer's
            own; None: the tokenizer's own.
        layer_norm: whether mteb standardises each embedding and scales it to length 1.
    """

    window: int | None = None
    prompts: dict[str, str] | None = None
    otherwise: str | None = None
    instructions: Callable[[TaskMetadata, PromptType | None], str] | None = None
    special_tokens: tuple[str, ...] | None = None
    layer_norm: bool = False


def registered(name: str) -> Registered | None:
    """Return a model in mteb's registry; None if it lacks the model.

    Args:
        name: the model's name on the hub.

    Raises:
        RequestError: mteb loads this model in another way, or with settings beyond those that are
            applied here.
    """
    import mteb
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
    from mteb.models.model_implementations.nomic_models import NomicWrapper
    from mteb.models.model_implementations.qwen3_models import (
        instruction_template,
        q3e_instruct_loader,
    )
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
    if loader is q3e_instruct_loader:
        # What that function passes on.
        loader = InstructSentenceTransformerModel
        settings |= {
            "instruction_template": instruction_template,
            "apply_instruction_to_passages": False,
        }
    if loader is InstructSentenceTransformerModel:
        instructions = _instructions(
            template=settings.pop("instruction_template", None),
            prompts=settings.pop("prompts_dict", None),
            priority=settings.pop("prompt_priority", None),
            to_documents=settings.pop("apply_instruction_to_passages", True),
        )
        tokens = _special_tokens(settings)
        _refuse_others(name, settings)
        return Registered(window, instructions=instructions, special_tokens=tokens)
    if isinstance(loader, type) and issubclass(loader, SentenceTransformerEncoderWrapper):
        is_nomic = loader is NomicWrapper
        # A subclass may encode in its own way.
        if is_nomic or loader.encode is SentenceTransformerEncoderWrapper.encode:
            prompts = settings.pop("model_prompts", None)
            _refuse_others(name, settings)
            return Registered(
                window,
                prompts,
                otherwise="document" if is_nomic else None,
                layer_norm=is_nomic and name in _LAYER_NORM,
            )
    raise RequestError(
        f"protocol.prompts=registry: mteb loads {name} with code of its own "
        f"({getattr(loader, '__name__', loader)}), whose prompts are unknown to lcbench. "
        "protocol=model uses those of the model's own files, protocol=paper none."
    )


def check_registry(model: LocatedModel) -> None:
    """Check that mteb's prompts for a model can be used, before the model is loaded.

    Raises:
        RequestError: mteb loads this model in a way that more than prompts would have to be taken
            from, or with other special tokens than requested.
    """
    found, asked = registered(model.name), model.settings.special_tokens
    if found is None:
        return
    tokens = found.special_tokens
    if tokens is None and asked is not None:
        path = transformer_folder(model.folder) / "tokenizer_config.json"
        config = read_object(path)
        if asked and all(config.get(f"add_{name}_token") is True for name in asked):
            # transformers 5 may drop some of them, and `load` then asks for the key.
            return
        raise RequestError(
            f"protocol.prompts=registry: model.special_tokens=[{','.join(asked)}]: mteb leaves "
            f"{model.name} the special tokens of its own tokenizer. Omit the key, or take "
            "protocol=model or protocol=paper."
        )
    if tokens is not None and tokens != asked:
        raise RequestError(
            f"protocol.prompts=registry: mteb adds {' and '.join(tokens) or 'no special token'} to "
            f"every text with {model.name}: model.special_tokens=[{','.join(tokens)}]."
        )


def finish(name: str, model: SentenceTransformer) -> str | None:
    """Let a model finish an embedding as mteb does after `encode`, and return what is added.

    mteb standardises the embeddings of Nomic's version 1.5 (their mean 0, their variance 1) after
    cutting them, and scales them to length 1.

    Args:
        name: the model's name on the hub.
        model: loaded; the steps become its last modules.

    Returns:
        The steps in words; None: there are none.
    """
    from sentence_transformers.sentence_transformer import modules

    from lcbench.encode.load import cut_by_module

    found = registered(name)
    if found is None or not found.layer_norm:
        return None
    weight = next(model.parameters())
    steps: tuple[Any, ...] = (modules.LayerNorm(cut_by_module(model)), modules.Normalize())
    for one in steps:
        model.append(one.to(device=weight.device, dtype=weight.dtype).eval())
    return "layer norm"


def _special_tokens(settings: dict[str, Any]) -> tuple[str, ...] | None:
    """Remove the settings of special tokens, and return what they add; None: there are none."""
    options = {f"add_{name}_token": False for name in _SPECIAL_TOKENS}
    given = {"add_eos_token": settings.pop("add_eos_token", False)}
    own = dict(settings.get("tokenizer_kwargs") or {})
    if own.keys() <= options.keys() | {"padding_side"}:
        settings.pop("tokenizer_kwargs", None)
        given |= {key: own[key] for key in options if key in own}
    asked = {**options, **given}
    tokens = tuple(name for name in _SPECIAL_TOKENS if asked[f"add_{name}_token"])
    return tokens or None


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


def _instructions(
    template: Any, prompts: Any, priority: Any, *, to_documents: bool
) -> Callable[[TaskMetadata, PromptType | None], str]:
    """Return the instructions of mteb's tasks in a model's template."""
    from mteb.models.abs_encoder import AbsEncoder, PromptSource
    from mteb.types import PromptType

    class Instructions(AbsEncoder):
        """mteb's rules for instructions, without a model."""

        def encode(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    rules = Instructions()
    # A function of the class would become a method.
    rules.instruction_template = template
    rules.prompts_dict = prompts
    if priority is not None:
        rules.prompt_priority = [PromptSource.from_str(source) for source in priority]

    def prompt_of(task: TaskMetadata, prompt_type: PromptType | None) -> str:
        if prompt_type == PromptType.document and not to_documents:
            return ""
        return rules.get_task_instruction(task, prompt_type)

    return prompt_of
