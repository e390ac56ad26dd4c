"""Refuses unsuitable kinds of models, by their files."""

from __future__ import annotations

import re
from pathlib import Path

from lcbench.errors import RequestError
from lcbench.hub.model_files import ADAPTER, base_model, modules, read_object

WITHOUT_ATTENTION = ("StaticEmbedding", "WordEmbeddings", "BoW")
ROUTERS = ("Router", "Asym")
# `architectures` of transformers checkpoints of other kinds.
_OTHER_TASKS = re.compile(
    r"\w*For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|"
    r"NextSentencePrediction|Retrieval)"
)


def refuse_adapter(name: str, folder: Path) -> None:
    """Refuse a folder that holds an adapter instead of a model.

    Raises:
        RequestError: with the remedy.
    """
    path = folder / ADAPTER
    if path.is_file():
        base = base_model(path)
        raise RequestError(
            f"model.name={name} holds a LoRA adapter{f' of {base}' if base else ''}, not a model. "
            "Merge it into its base model (peft: merge_and_unload) and save that as a "
            "sentence-transformers model."
        )


def refuse_other_kinds(name: str, folder: Path) -> None:
    """Refuse a model that is not a text embedding model with attention.

    Raises:
        RequestError: naming its kind.
    """
    kind = read_object(folder / "config_sentence_transformers.json").get("model_type")
    if kind not in (None, "SentenceTransformer"):
        raise RequestError(
            f"{name} is a {kind} (config_sentence_transformers.json), not an embedding model: "
            "sentence-transformers would turn it into one by mean pooling."
        )
    entries = modules(folder)
    first = str(entries[0]["type"]).rpartition(".")[2] if entries else ""
    if first in WITHOUT_ATTENTION:
        raise RequestError(
            f"{name} has no attention: its first module is {first} (modules.json), and a "
            "temperature would change nothing."
        )
    if entries:
        return
    stated = read_object(folder / "config.json").get("architectures")
    for architecture in stated if isinstance(stated, list) else []:
        if _OTHER_TASKS.fullmatch(str(architecture)):
            raise RequestError(
                f"{name} is a {architecture} (config.json), not an embedding model: its head would "
                "be ignored, and sentence-transformers would choose a pooling. To use its encoder, "
                "save it as a sentence-transformers model."
            )


def refuse_own_code(name: str, folder: Path, transformer: Path) -> None:
    """Refuse a model that only code of its own repository can run, since that is not trusted.

    Args:
        name: name of the model.
        folder: its folder.
        transformer: folder of its transformer.

    Raises:
        RequestError: naming what needs the code.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    needs = [
        f"its module {kind} (modules.json)"
        for kind in (str(entry["type"]) for entry in modules(folder))
        if not kind.startswith("sentence_transformers.")
    ]
    config = read_object(transformer / "config.json")
    kind = config.get("model_type")
    if isinstance(config.get("auto_map"), dict) and kind not in CONFIG_MAPPING:
        needs.append(f"its architecture {kind} (config.json), which transformers does not have")
    if needs:
        raise RequestError(
            f"{name} needs code of its own repository: {' and '.join(needs)}. lcbench runs it only "
            "with model.trust_remote_code=true and model.revision=<the 40 digits of a commit>."
        )


def refuse_pickles(name: str, folder: Path) -> None:
    """Refuse weights that only exist as pickles, since reading one can run arbitrary code.

    Folders that no module of the model is read from are ignored: the whole repository of E5-Mistral
    has an adapter in `lora`.

    Raises:
        RequestError: naming the file.
    """
    pickles = ("pytorch_model*.bin", "adapter_model*.bin")
    named = {folder / str(entry["path"]) for entry in modules(folder)} - {folder}
    for path in [path for pattern in pickles for path in sorted(folder.rglob(pattern))]:
        if path.parent != folder and not any(map(path.is_relative_to, named)):
            continue
        if not any(path.parent.glob("*.safetensors")):
            raise RequestError(
                f"{name}: {path.relative_to(folder)} has no safetensors counterpart, and "
                "pickles are not read. Convert it, or use a revision that has safetensors."
            )
