"""Loads a located model with sentence-transformers, or refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.hub.model_files import read_object, transformer_folder
from lcbench.hub.models import LocatedModel, check_unchanged, refuse_without_room, set_pooling
from lcbench.hub.windows import has_no_table, set_window, window_of
from lcbench.system import transient

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def load(
    located: LocatedModel, *, device: str, dtype: str, attention: str | None = None
) -> SentenceTransformer:
    """Load a located model in evaluation mode, its window set.

    Args:
        located: from `locate`.
        device: `cpu`, `cuda`, `cuda:1` …
        dtype: `float32`, `float16` or `bfloat16`.
        attention: an implementation of `transformers`; None: what it takes by itself, sdpa where
            the architecture has it. With flash_attention_2 texts are not padded.

    Raises:
        RequestError: it has no safetensors weights, or not this attention; its checkpoint lacks
            weights that it uses, or has others; sentence-transformers replaces some of its
            settings; its files are no longer those that were located.
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

    reports: list[LoadReport] = []
    try:
        with load_reports() as reports, load_warnings() as warnings:
            model = SentenceTransformer(
                str(located.folder),
                device=device,
                trust_remote_code=located.settings.trust_remote_code,
                local_files_only=True,
                model_kwargs={
                    "use_safetensors": True,
                    "torch_dtype": getattr(torch, dtype),
                    **({} if attention is None else {"attn_implementation": attention}),
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
    refuse_replaced(located.name, warnings)
    refuse_incomplete(located.name, reports, model)
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
