"""What the benches share: a request as the command line reads it, and smaller data.

Run none of this: `bench_engine.py`, `gpu_check.py` and `dtype_table.py` use it.
"""

import datetime
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from lcbench.hub.models import shipped_models
from lcbench.results import provenance
from lcbench.settings import configs, schema
from lcbench.settings import read as settings
from lcbench.system import versions as system_versions
from lcbench.tasks.docs.names import DOCS_TYPES
from lcbench.tasks.registry import registry

DOCS = tuple(DOCS_TYPES)
# What there is of public tasks to be had without the hub; the others of a mirror are left alone.
MIRROR = (
    "STSBenchmark",
    "STS13",
    "Banking77Classification",
    "EmotionClassification",
    "MassiveIntentClassification",
    "LEMBQMSumRetrieval",
)
# Rows of each label that are kept of a training split: mteb draws up to 16 of each.
_ROWS_OF_A_LABEL = 24


@dataclass(frozen=True)
class MirrorCut:
    """How much of a mirror's data is used, so that a bench takes minutes.

    Attributes:
        labels: of a classification; of each, its first 24 rows of every split.
        pairs: of sentences.
        documents: of a retrieval task, with the queries that they are relevant to.
    """

    labels: int
    pairs: int
    documents: int


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Return the config that `python -m lcbench <overrides>` composes."""
    with initialize_config_dir(str(configs.config_folder()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def known(overrides: Sequence[str]) -> list[str]:
    """Return those overrides whose keys the configs have."""
    config = compose_config([])
    missing = object()
    return [
        one
        for one in overrides
        if OmegaConf.select(config, one.partition("=")[0], default=missing) is not missing
    ]


def read(overrides: Sequence[str], model: str) -> schema.Settings:
    """Return the settings of `python -m lcbench <overrides>` for one model.

    Args:
        overrides: the model's among them.
        model: the name of its config.
    """
    return settings.read({model: compose_config(overrides)})


def model_overrides(model: str, window: int) -> list[str]:
    """Return the overrides of a model.

    Args:
        model: the name of a config of `conf/model`, or a folder.
        window: the most tokens that it reads.
    """
    if model in shipped_models():
        return [f"model={model}", f"model.window={window}"]
    return [
        "model=custom",
        f"model.name={Path(model).resolve()}",
        f"model.window={window}",
    ]


def in_mirror(mirror: Path | None) -> tuple[str, ...]:
    """Return those of the mirror's tasks whose data lies there in a plain folder."""
    if mirror is None:
        return ()
    every = registry().tasks
    return tuple(task for task in MIRROR if (mirror / every[task].dataset).is_dir())


def cut_mirror(mirror: Path, folder: Path, size: MirrorCut | None) -> Path:
    """Copy a mirror's plain folders of the tasks above with fewer rows.

    Args:
        mirror: with `<organisation>/<dataset>` folders of a card and parquet files.
        folder: a new one.
        size: None: nothing is cut, and the mirror itself is returned.
    """
    if size is None:
        return mirror.resolve()
    for card in sorted(mirror.glob("*/*/README.md")):
        dataset = card.parent
        tables = {path: pd.read_parquet(path) for path in sorted(dataset.rglob("*.parquet"))}
        if not tables:
            continue
        ids = _ids({path.stem: rows for path, rows in tables.items()}, size.documents)
        for path, rows in tables.items():
            target = folder / path.relative_to(mirror)
            target.parent.mkdir(parents=True, exist_ok=True)
            _cut(rows, size, ids).to_parquet(target, index=False)
        shutil.copy(card, folder / card.relative_to(mirror))
    return folder


def _ids(tables: dict[str, pd.DataFrame], count: int) -> set[str]:
    """Return the ids of a retrieval dataset's first documents and of the queries for them."""
    if "corpus" not in tables:
        return set()
    documents = set(tables["corpus"]["doc_id"].head(count))
    judged = tables["qrels"]
    return documents | set(judged["qid"][judged["doc_id"].isin(documents)])


def _cut(rows: pd.DataFrame, size: MirrorCut, ids: set[str]) -> pd.DataFrame:
    if "label" in rows:
        labels = sorted(set(rows["label"]))[: size.labels]
        return rows[rows["label"].isin(labels)].groupby("label").head(_ROWS_OF_A_LABEL)
    if "sentence1" in rows:
        return rows.head(size.pairs)
    # Corpus, queries and judgements have the same columns, those that they lack empty.
    return rows[rows["qid"].isin(ids) | (rows["qid"].isna() & rows["doc_id"].isin(ids))]


def machine() -> str:
    """Return the date, the machine and the versions, in one sentence."""
    hardware: dict[str, Any] = provenance.environment("cpu")["hardware"]
    versions = system_versions.versions()
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "mteb"))
    return (
        f"{datetime.date.today():%Y-%m-%d}, {hardware['cpu'] or platform.machine()}, "
        f"{hardware['threads']} threads, {libraries}, Python {platform.python_version()}."
    )
