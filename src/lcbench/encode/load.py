"""Loads a located model with sentence-transformers, or refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.hub.kinds import refuse_own_code
from lcbench.hub.model_files import read_object, transformer_folder
from lcbench.hub.models import LocatedModel, check_unchanged, refuse_without_room, set_pooling
from lcbench.hub.windows import has_no_table, set_window, window_of
from lcbench.system import transient

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Tokens besides the special ones, with fewer of which a vocabulary is empty.
_FEWEST_TOKENS = 10


def load(
    located: LocatedModel,
    *,
    device: str,
    dtype: str,
    attention: str | None = None,
    spread: bool = False,
) -> SentenceTransformer:
    """Load a located model in evaluation mode, its window set.

    Args:
        located: from `locate`.
        device: `cpu`, `cuda`, `cuda:1` …
        dtype: `float32`, `float16` or `bfloat16`.
        attention: an implementation of `transformers`; None: what it takes by itself, sdpa where
            the architecture has it. With flash_attention_2 texts are not padded.
        spread: let accelerate spread its layers over all GPUs; `device` is the first.

    Raises:
        RequestError: it has no safetensors weights, or not this attention; its checkpoint lacks
            weights that it uses, or has others; sentence-transformers replaces some of its
            settings; its files are no longer those that were located; it needs code that is not
            trusted; its tokenizer has no padding token, or adds other special tokens than asked.
        RuntimeError: of torch's, about the device or its memory: the model is not at fault.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.checkpoint import (
        LoadReport,
        load_reports,
        load_warnings,
        refuse_incomplete,
        refuse_replaced,
    )
    from lcbench.encode.roles import cap_lengths

    if not located.settings.trust_remote_code:
        refuse_own_code(located.name, located.folder, transformer_folder(located.folder))
    tokens = located.settings.special_tokens
    reports: list[LoadReport] = []
    try:
        with load_reports() as reports, load_warnings() as warnings:
            model = SentenceTransformer(
                str(located.folder),
                device=None if spread else device,
                trust_remote_code=located.settings.trust_remote_code,
                local_files_only=True,
                truncate_dim=located.dimensions,
                processor_kwargs=None
                if tokens is None
                else {f"add_{name}_token": name in tokens for name in ("bos", "eos")},
                model_kwargs={
                    "use_safetensors": True,
                    "torch_dtype": getattr(torch, dtype),
                    **({} if attention is None else {"attn_implementation": attention}),
                    **({"device_map": "auto"} if spread else {}),
                },
            )
    # What a broken or foreign folder makes of the loading code is of no certain kind.
    except Exception as error:
        if transient.is_of_device(error):
            raise
        if reports:
            # Weights of another shape are refused by transformers, without their names.
            refuse_incomplete(located.name, reports)
        raise RequestError(
            f"The model {located.name} in {located.folder} could not be loaded "
            f"({type(error).__name__}: {error}). Only safetensors weights are read"
            + ("." if attention is None else f"; engine.attention={attention} was requested.")
        ) from error
    _refuse_offloaded(located.name, model)
    refuse_replaced(located.name, warnings)
    refuse_incomplete(located.name, reports, model)
    _check_tokenizer(located, model)
    set_pooling(located, model)
    if located.settings.window is not None:
        if (
            located.window is None
            and model.max_seq_length != located.settings.window
            and located.settings.window != located.positions
        ):
            raise RequestError(
                f"model.window={located.settings.window}: by its files that is {located.name}'s "
                f"own window, but it reads {model.max_seq_length} tokens when loaded."
            )
        set_window(model, located.settings.window)
    loaded, own = window_of(model), located.own_window
    if located.settings.window is None and own is not None and (loaded is None or own < loaded):
        # Files state more than the positions; RoBERTa's are fewer than the rows of its table.
        set_window(model, own)
    config = read_object(transformer_folder(located.folder) / "config.json")
    if located.positions is not None and not has_no_table(config):
        cap_lengths(model, located.positions, located.name)
    refuse_without_room(located, model)
    # Out of the file that they are mapped from: it may be evicted from memory or replaced while a
    # long run goes on. On a GPU they are copies already.
    if model.device.type == "cpu":
        with torch.no_grad():
            for weight in model.parameters():
                weight.data = weight.data.clone()
    check_unchanged(located)
    return model.eval()


def cut_by_module(model: SentenceTransformer) -> int:
    """Let a module cut embeddings to the kept dimensions, so that others can follow it.

    sentence-transformers cuts them after all modules.

    Args:
        model: loaded; the module becomes its last, if embeddings are cut at all.

    Returns:
        The dimensions of an embedding.
    """
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    full = next(width for one in reversed(model) if (width := _width(one)) is not None)
    kept, model.truncate_dim = model.truncate_dim, None
    if kept is None or kept >= full:
        return full
    weight = next(model.parameters())
    # The first rows of the identity: a product with them is exact.
    rows = torch.eye(kept, full)
    cut = Dense(full, kept, bias=False, activation_function=None, init_weight=rows)
    model.append(cut.to(device=weight.device, dtype=weight.dtype).eval())
    return kept


def _width(module: Any) -> int | None:
    width = getattr(module, "get_embedding_dimension", None)
    return int(width()) if callable(width) else None


def _refuse_offloaded(name: str, model: SentenceTransformer) -> None:
    """Refuse a model of which accelerate has left layers out of the devices' memory.

    Raises:
        RequestError: it would be loaded from memory or disk for every batch.
    """
    transformer: Any = model[0]
    places = getattr(getattr(transformer, "model", None), "hf_device_map", None) or {}
    if {"cpu", "disk"} & {str(one) for one in places.values()}:
        raise RequestError(
            f"engine.devices=spread: {name} does not fit into the memory of all GPUs together. "
            "Take protocol.dtype=bfloat16, or GPUs that nothing else uses."
        )


def _check_tokenizer(located: LocatedModel, model: SentenceTransformer) -> None:
    """Check that a tokenizer has words, can pad, and adds the special tokens that it should.

    Raises:
        RequestError: naming the remedy.
    """
    from transformers import PreTrainedTokenizerBase

    tokenizer = model.tokenizer
    # Static embeddings have another tokenizer class.
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return
    path = transformer_folder(located.folder) / "tokenizer_config.json"
    # Without its vocabulary transformers makes an empty one, in which every word is unknown.
    if len(tokenizer) < len(tokenizer.added_tokens_decoder) + _FEWEST_TOKENS:
        raise RequestError(
            f"{located.name}: its tokenizer has no vocabulary, so that all words would be the same "
            f"to the model. Its file, such as tokenizer.json, is missing in {path.parent}."
        )
    if tokenizer.pad_token_id is None:
        raise RequestError(
            f"{located.name}: its tokenizer has no padding token, which batches need. Add one to "
            f'{path}, such as "pad_token": "{tokenizer.eos_token or "<pad>"}".'
        )
    asked, config = located.settings.special_tokens, read_object(path)
    ids = tokenizer("a text")["input_ids"] or [None]
    adds = {
        "bos": tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id,
    }
    if asked is not None:
        if lacking := [name for name in asked if not adds[name]]:
            raise RequestError(
                f"model.special_tokens=[{','.join(asked)}]: the tokenizer of {located.name} has no "
                f"{' and no '.join(lacking)} token."
            )
        return
    stated = [name for name in adds if config.get(f"add_{name}_token") is True]
    # transformers 5 follows tokenizer.json, where versions before followed these keys.
    if dropped := [name for name in stated if not adds[name]]:
        keys = " and ".join(f"add_{name}_token" for name in dropped)
        raise RequestError(
            f"{located.name}: {path.name} states {keys}, and transformers adds none, since "
            "tokenizer.json does not. Set the special tokens that texts get: "
            f"model.special_tokens=[{','.join(stated)}], as the file states, or "
            f"[{','.join(name for name in stated if name not in dropped)}], as transformers does."
        )
