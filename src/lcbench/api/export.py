"""`lcbench.export`: writes a sentence-transformers model with a repair built in."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def export_asked(config: DictConfig) -> tuple[Path, float]:
    """Write the model that a composed config asks for.

    Returns:
        Its folder, and the largest difference between its embeddings and the repaired model's.

    Raises:
        RequestError: the repair cannot be expressed in weights, or the model is missing.
    """
    from lcbench.api.overrides import refuse_another_name
    from lcbench.hub import cache
    from lcbench.run.export import export
    from lcbench.settings.read import read_export

    refuse_another_name()
    asked = read_export(config)
    if asked.hub is not None:
        cache.use(asked.hub)
    offline, mirror = asked.offline, asked.mirror
    error = export(asked.model, asked.repair, asked.out, offline=offline, mirror=mirror)
    return asked.out, error


def export(
    model: str | PathLike[str],
    tau: Any,
    out: str | PathLike[str],
    *,
    extend: Any = None,
    gain: Any = None,
    correct: Any = None,
    mirror: str | PathLike[str] | None = None,
    offline: bool | None = None,
    config_dir: str | PathLike[str] | None = None,
    **keys: Any,
) -> Path:
    """Write a sentence-transformers model with a repair built in.

    It does the same as `python -m lcbench export model=… tau=… out=…`. The written model is loaded
    again and compared with the model under that repair.

    Args:
        model: a config (`"minilm"`), a name on the hub, or a folder of a model.
        tau: the temperature, or a policy by layer (`{"layers": {0: 1.0, 6: 0.8}}`) or head
            (`{"heads": "heads.json"}`). Policies by role or by text length cannot be built into
            weights: see `lcbench.inject`. None: 1, if there is another part.
        out: folder to create.
        extend: a context extension that weights and configuration can hold: `{"pi": 1024}`,
            `{"yarn": 4096}`.
        gain: factors of LayerNorms or feed-forward networks: `{"layernorm": 1.1, "ffn": 0.9}`.
        correct: a correction with the texts that it is fitted on: `{"centre": {"on":
            "docstrings"}}`, `{"abtt": {"components": 3, "on": "docstrings"}}`.
        mirror: folder that is searched for the model first.
        offline: whether the network must not be used.
        config_dir: a folder of your own configs, as for `--config-dir`: with `model/mine.yaml` in
            it, `model="mine"` is a config.
        keys: any other key of `python -m lcbench export`: `tau_bias`, `window` …

    Returns:
        The folder.

    Raises:
        RequestError: the repair cannot be built into this model, or `out` exists.
        StorageError: `out` cannot be written.

    Examples:
        >>> folder = lcbench.export("minilm", 0.9, "minilm-at-0.9")
        >>> SentenceTransformer(str(folder)).encode(["a text"])
    """
    from lcbench.api.compose import composed
    from lcbench.api.keywords import words_of
    from lcbench.hub import cache

    parts = {"extend": extend, "gain": gain, "correct": correct}
    if tau is None and not any(part is not None for part in parts.values()):
        raise RequestError("tau=None: export needs a temperature (0.8) or a policy by layer.")
    own = {"model": model, "tau": tau, **parts, "out": out}
    own |= {"mirror": mirror, "offline": offline}
    words = words_of("export", {**own, **keys})
    with cache.kept(), composed("export", words, config_dir) as config:
        return export_asked(config)[0]
