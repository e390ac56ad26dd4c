"""The window of a model in tokens: as stated in its files, and as allowed by its positions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.hub.model_files import read_object
from lcbench.tempscale.policy import PositionKind

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Architectures whose positions start after the padding id.
_COUNT_FROM_PADDING = frozenset(
    {
        *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert"),
        *("data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke"),
        *("markuplm", "xmod"),
    }
)
# Architectures with relative positions, whatever number their configuration states.
_RELATIVE = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers"})
# Architectures with linear biases, which their configuration does not always say.
_ALIBI = frozenset({"bloom", "mpt"})
# Files in which sentence-transformers looks for a window, in this order.
_WINDOW_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Options of the tokenizer in these files, the older name first. Its limit takes precedence over
# `max_seq_length`; null means none.
_TOKENIZER_OPTIONS = ("tokenizer_args", "processor_kwargs")
_LIMIT = "model_max_length"
# A stated window of at least so many tokens means no limit: transformers writes 1e30, others 1e12,
# and the longest window of a released model is 1e7.
NO_LIMIT = 1e9


def set_window(model: SentenceTransformer, window: int) -> None:
    """Set the window of a model, on all of its routes."""
    from sentence_transformers.base.modules import Router

    first = model[0]
    if not isinstance(first, Router):
        model.max_seq_length = window
        return
    routes: Any = first.sub_modules
    for route in routes.values():
        # Static embeddings have no settable window, and would be refused for all routes.
        with suppress(AttributeError):
            route[0].max_seq_length = window


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a model has positions for; None if there is no limit.

    Raises:
        RequestError: its positions start after an invalid padding id.
    """
    if config.get("model_type") in _RELATIVE:
        return None
    count = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(count, int):
        return None
    if config.get("model_type") == "mpnet":
        # Its padding id is 1, whatever its configuration says.
        return count - 2
    if config.get("model_type") in _COUNT_FROM_PADDING:
        padding = config.get("pad_token_id", 1)
        if not isinstance(padding, int):
            stated = "null" if padding is None else repr(padding)
            raise RequestError(
                f"config.json: pad_token_id is {stated}, and a model of the type "
                f"{config['model_type']} counts its positions from there on. It is 1 in most."
            )
        return count - padding - 1
    return count


def position_kind(config: Mapping[str, Any]) -> PositionKind | None:
    """Return how the position of a token enters a model; None if its configuration does not say."""
    stated = config.get("position_embedding_type")
    if stated == "alibi" or config.get("alibi") or config.get("model_type") in _ALIBI:
        return "alibi"
    if config.get("model_type") in _RELATIVE or config.get("relative_attention"):
        return "relative"
    if stated in ("rotary", "rope") or any(
        "rope_" in key or "rotary_" in key for key, value in config.items() if value is not None
    ):
        return "rotary"
    return "absolute" if isinstance(config.get("max_position_embeddings"), int) else None


def window_in_files(transformer: Path, config: dict[str, Any], positions: int | None) -> int | None:
    """Return the default window: sentence-transformers' setting, limited by the positions.

    Raises:
        RequestError: a file states a window below one token.
    """
    stated = stated_window(transformer)
    window = None if stated is None else stated[0]
    if stated is not None and stated[1].name in _WINDOW_FILES and has_no_table(config):
        return window
    return min((limit for limit in (window, positions) if limit is not None), default=None)


def stated_window(transformer: Path) -> tuple[int, Path, str] | None:
    """Return the window stated in a model's files, with file and key; None if none is.

    Raises:
        RequestError: it is below one token.
    """
    tokenizer = transformer / "tokenizer_config.json"
    entries = [(read_object(tokenizer).get(_LIMIT), tokenizer, _LIMIT)]
    # sentence-transformers uses the first file that states one.
    for path in [path for name in _WINDOW_FILES if read_object(path := transformer / name)][:1]:
        config = read_object(path)
        name = next((one for one in _TOKENIZER_OPTIONS if one in config), "")
        options = config.get(name)
        if isinstance(options, dict) and _LIMIT in options:
            entries = [(options[_LIMIT], path, f"{name}.{_LIMIT}")]
        else:
            entries.insert(0, (config.get("max_seq_length"), path, "max_seq_length"))
    for value, path, key in entries:
        window = _limit(value, f"{path}: {key}")
        if window is not None:
            return window, path, key
    return None


def has_no_table(config: dict[str, Any]) -> bool:
    """Return whether a model computes its positions, so that they do not limit the window.

    sentence-transformers then uses the window in the file.
    """
    return bool(
        any("rope_" in key or "rotary_emb" in key for key in config)
        or config.get("position_embedding_type") == "alibi"
        # DeBERTa's positions are relative; an additional table is optional.
        or (config.get("relative_attention") and config.get("position_biased_input") is False)
    )


def _limit(stated: Any, where: str) -> int | None:
    """Return a stated window in tokens; None if none is stated or it is no limit.

    Raises:
        RequestError: it is below one token.
    """
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated >= NO_LIMIT:
        return None
    if stated < 1:
        raise RequestError(f"{where} is {stated}: a window of less than one token reads nothing.")
    return int(stated)


def window_of(model: Any) -> int | None:
    """Return the window of a loaded model in tokens; None if there is no limit."""
    window = model.max_seq_length
    return None if window is None or window >= NO_LIMIT else int(window)
