"""Makes the engine of a loaded model, for scoring and for measuring alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lcbench.errors import InjectionError, RequestError
from lcbench.hub.windows import window_of
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.system.hardware import devices_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.encode.options import EngineSettings
    from lcbench.encode.prompts import PromptOf
    from lcbench.encode.store.shelf import Store
    from lcbench.hub.models import LocatedModel
    from lcbench.results.provenance import ModelFacts
    from lcbench.system.observer import Observer

# The note of how a model finishes embeddings, if that is not its own way.
FINISH = "finish"


def devices_of_process(options: EngineSettings) -> list[str]:
    """Return the devices that one process computes on: the first, if a model is spread over all.

    Raises:
        RequestError: torch does not find them here, or accelerate is not installed.
    """
    every = devices_of(options.device)
    if not options.is_spread:
        return every
    check_gpus(options, every)
    if find_spec("accelerate") is None:
        raise RequestError("engine.devices=spread needs accelerate: pip install 'lcbench[spread]'.")
    return every[:1]


def check_gpus(options: EngineSettings, every: Sequence[str]) -> None:
    """Check that `engine.devices` can have all GPUs of this machine.

    Args:
        options: options of the encoder.
        every: the devices that torch finds.

    Raises:
        RequestError: there are none, or `engine.device` names one.
    """
    if options.device not in ("auto", "cuda") or not every[0].startswith("cuda"):
        raise RequestError(
            f"engine.devices={options.devices_written} needs the GPUs of this machine, and "
            f"engine.device={options.device} means {every[0]} here. Omit engine.devices."
        )


def load_for(
    model: LocatedModel,
    options: EngineSettings,
    *,
    dtype: str,
    device: str,
    observer: Observer,
    prompts: str = "none",
    repairs: Iterable[Repair] = (),
) -> tuple[SentenceTransformer, dict[str, str]]:
    """Load a model as the encoder's options ask for.

    By default its texts are padded on a CPU and not on a GPU, where the model allows that.

    Args:
        model: the model's files.
        options: options of the encoder.
        dtype: dtype of the protocol.
        device: `cpu`, `cuda`, `cuda:1` …
        observer: is told how much memory the model takes, and warned if texts are messages of a
            chat, or if `engine.attention=varlen` or `engine.fp32=fp16x3` does not suit the model.
        prompts: source of the protocol's prompts; with `registry` the model finishes embeddings as
            mteb does.
        repairs: that it will be under, some of which read more tokens of a text.

    Returns:
        The model, why either is not done (`attention_note`, `fp32_note`), and how it finishes
        embeddings if that is not the model's own way (`finish`).

    Raises:
        RequestError: the model and texts as long as its window take more memory than there is, or
            mteb gives texts other special tokens.
    """
    from lcbench.encode import arithmetic
    from lcbench.encode.load import load
    from lcbench.encode.roles import tokens_of_chat
    from lcbench.hub.models import dimensions_of
    from lcbench.plan.machine import machine_of
    from lcbench.plan.memory import check_memory, memory_of

    if prompts == "registry":
        from lcbench.encode.registry import check_registry

        check_registry(model)
    known, machine = dimensions_of(model), machine_of(replace(options, device=device), dtype)
    if known is not None:
        memory = memory_of(
            known,
            machine,
            repairs=repairs,
            batch_tokens=options.batch_tokens,
            spread=options.is_spread,
        )
        check_memory(model.name, memory, dtype)
        if memory is not None:
            observer.say(f"{model.name}: {memory}", dim=True)

    is_asked = options.attention == "varlen"
    # Compiled code without padding has not been measured on a GPU, and what is computed of a batch
    # without padding is on one device.
    unpadded = is_asked or (
        options.attention is None
        and device.startswith("cuda")
        and not options.compile
        and not options.is_spread
    )
    loaded = load(
        model,
        device=device,
        dtype=arithmetic.weights_dtype(dtype),
        attention=None if unpadded else options.attention,
        spread=options.is_spread,
    )
    if (chat := tokens_of_chat(loaded)) is not None:
        observer.warn(
            f"{model.name}: each text is read as a chat message, as sentence-transformers does "
            f"with the tokenizer's chat template: “a text” is {chat[0]:,} tokens, not {chat[1]:,}. "
            "If the model was trained on plain texts, remove the template from its folder "
            "(chat_template.jinja, or chat_template in tokenizer_config.json)."
        )
    notes: dict[str, str] = {}
    if prompts == "registry":
        from lcbench.encode.registry import finish

        if (steps := finish(model.name, loaded)) is not None:
            notes[FINISH] = steps
    if options.fp32 == "fp16x3":
        from lcbench.encode.split import refusal_of

        if (refusal := refusal_of(loaded)) is not None:
            notes["fp32_note"] = refusal
            observer.warn(f"engine.fp32=fp16x3: {model.name} multiplies in float32: {refusal}")
    if unpadded:
        from lcbench.encode.unpadded import use_unpadded

        if (refusal := use_unpadded(loaded)) is not None:
            notes["attention_note"] = refusal
            if is_asked:
                observer.warn(
                    f"engine.attention=varlen: {model.name} runs with padding as before: {refusal}"
                )
    if options.graphs:
        refusal = notes.get("attention_note")
        if not device.startswith("cuda"):
            refusal = f"CUDA graphs need a CUDA device, and the device is {device}."
        elif refusal is None:
            from lcbench.encode.graphs import capture_refusal
            from lcbench.encode.unpadded import embed_probe

            refusal = capture_refusal(loaded, lambda: embed_probe(loaded))
        if refusal is not None:
            notes["graphs_note"] = refusal
            observer.warn(f"engine.graphs=true has no effect on {model.name}: {refusal}")
    return loaded, notes


def engine_of(
    model: LocatedModel,
    loaded: SentenceTransformer,
    facts: ModelFacts,
    options: EngineSettings,
    store: Store,
    *,
    dtype: str,
    devices: Sequence[str],
    prompt_of: PromptOf,
    on_progress: Callable[[int, int], None],
    cores_left: Callable[[], int],
    notes: Mapping[str, str] | None = None,
) -> Engine:
    """Return the engine that encodes with a loaded model.

    Args:
        model: the model's files.
        loaded: the model.
        facts: about it; the digest of its files is part of the store's key.
        options: runtime knobs of the encoder.
        store: store of embeddings.
        dtype: dtype of the protocol.
        devices: devices that copies of the model run on.
        prompt_of: the prompt of a task's texts.
        on_progress: called with the texts and tokens of each batch.
        cores_left: number of cores that nothing else uses at the moment.
        notes: why options do not suit the model, and how it finishes embeddings (`load_for`).
    """
    from lcbench.encode.engine import Engine, Identity
    from lcbench.encode.forward import Forward

    forward = Forward(
        loaded,
        devices=devices,
        batch_tokens=options.batch_tokens,
        compiled=options.compile,
        joint=options.fuse_qkv,
        graphs=options.graphs and "graphs_note" not in (notes or {}),
        split=options.fp32 == "fp16x3" and "fp32_note" not in (notes or {}),
        notes=notes,
        cores_left=cores_left,
    )
    identity = Identity(
        model.name,
        # Files of a commit may have been changed on this machine.
        (facts.digest or model.revision) + (" own code" if model.own_code else ""),
        window_of(loaded),
        dtype,
        model.pooling,
        changes=_changes(model, (notes or {}).get(FINISH)),
    )
    return Engine(forward, store, identity, prompt_of=prompt_of, on_progress=on_progress)


def _changes(model: LocatedModel, finish: str | None) -> str | None:
    """Return what is changed in a model besides its pooling, for the key of stored embeddings."""
    tokens, dimensions = model.settings.special_tokens, model.dimensions
    parts = [
        *([] if tokens is None else [f"special tokens {' '.join(tokens)}".strip()]),
        *([] if dimensions is None else [f"{dimensions} dimensions"]),
        *([] if finish is None else [finish]),
    ]
    return ", ".join(parts) or None


def prompts_of(
    model: LocatedModel, loaded: SentenceTransformer, prompts: str, observer: Observer
) -> PromptOf:
    """Return what gives the prompts of a protocol, after saying where they come from.

    Args:
        model: the model's files.
        loaded: the model.
        prompts: `none`, `model` or `registry`.
        observer: receives a line about the prompts, and a warning if a folder has none of mteb's
            registry, and none of its own.
    """
    from lcbench.encode.prompts import (
        describe_prompts,
        model_prompts,
        no_prompt,
        registry_prompts,
    )
    from lcbench.hub.models import source_of

    if line := describe_prompts(prompts, model.name, loaded):
        observer.say(line, dim=True)
    is_folder = source_of(model.settings) == "folder"
    if prompts == "registry" and is_folder and not any((loaded.prompts or {}).values()):
        observer.warn(
            f"protocol.prompts=registry: {model.name} is a folder, and mteb's registry has models "
            "by their names on the hub: texts get no prompts. If it is a copy of a model of the "
            "hub, put it into FOLDER/<organisation>/<model>, and use model=<organisation>/<model> "
            "mirror=FOLDER."
        )
    if prompts == "none":
        return no_prompt
    return model_prompts(loaded) if prompts == "model" else registry_prompts(model.name, loaded)


def proofs_of(
    loaded: SentenceTransformer, repairs: Iterable[Repair]
) -> dict[Repair, dict[str, Any] | None]:
    """Prove that repairs can be applied to a model, before anything is encoded.

    Returns:
        What was checked, as JSON types, by `Repair.encoding`: fields of `Proof`, and what was
        checked of each other change of the model as `changes`; None where nothing is changed.

    Raises:
        InjectionError: the model does not obey one of them.
    """
    from lcbench.tempscale.inject import Injection

    proofs: dict[Repair, dict[str, Any] | None] = {NO_REPAIR: None}
    for repair in dict.fromkeys(one.encoding for one in repairs):
        with ExitStack() as stack:
            changes = []
            try:
                for change in repair.changes:
                    applied = change.apply(loaded)
                    stack.callback(applied.remove)
                    changes.append({"change": change.canonical, **applied.proof})
                proof = {"changes": changes} if changes else {}
                if not repair.policy.is_baseline:
                    proof |= asdict(stack.enter_context(Injection(loaded, repair.policy)).proof)
            except InjectionError as error:
                raise InjectionError(f"{repair}: {error}") from error
            proofs[repair] = proof or None
    return proofs
