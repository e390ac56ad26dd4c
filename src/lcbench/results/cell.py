"""Cells (model × repair × task under a protocol) and their identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lcbench.repair.repair import Repair

# The name of `Protocol.texts` in keys and in provenance, as in existing results.
_TEXTS = "docs"


@dataclass(frozen=True)
class Protocol:
    """The conditions that must be equal for two scores to be comparable.

    Attributes:
        name: name of its config.
        prompts: `none`: texts are encoded without prompts; `model`: with the prompts in the model's
            files; `registry`: with the prompts and instructions of mteb's registry for the model.
        dtype: dtype of weights and activations; `tf32`: float32 with matrix products in TF32.
        splits: scored splits of a task: a rule, or names joined by commas.
        subsets: subsets or languages that tasks are restricted to; None: all.
        window: requested window in tokens; None: each model's own.
        texts: digest of a task's texts (`Source.digest`); None: they are datasets of the hub, whose
            commits tasks name.
        pooling: requested pooling that replaces the model's; None: the model's own.
        own_code: whether the model's own code may run (`model.trust_remote_code`).
        limit: number of items scored in each split and subset, drawn at random (`tasks.limit`);
            None: all.
        dimensions: requested dimensions of embeddings, which are cut; None: the model's own.
        special_tokens: requested special tokens of a text (`bos eos`); None: the tokenizer's own.
    """

    name: str
    prompts: str
    dtype: str
    splits: str
    subsets: tuple[str, ...] | None
    window: int | None
    texts: str | None
    pooling: str | None = None
    own_code: bool = False
    limit: int | None = None
    dimensions: int | None = None
    special_tokens: str | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The fields as stored in a cell's provenance."""
        fields = {_TEXTS if name == "texts" else name: one for name, one in asdict(self).items()}
        # Left out if None, as in results from before these keys.
        for name in ("limit", "dimensions", "special_tokens"):
            if fields[name] is None:
                del fields[name]
        return fields

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Protocol:
        """Return the protocol stored in a cell's provenance.

        Raises:
            TypeError: the record has other fields.
        """
        return cls(
            **{"texts" if name == _TEXTS else name: one for name, one in dict(record).items()}
        )

    @property
    def key(self) -> str:
        """The name and a short digest of everything else, which name a folder of results."""
        fields = self.record
        if self.subsets is None:
            # Left out if None, so that results from before this key are still found.
            del fields["subsets"]
        if self.pooling is None:
            del fields["pooling"]
        if not self.own_code:
            del fields["own_code"]
        content = json.dumps(fields, sort_keys=True)
        # So that the folder's name shows what it contains.
        name = self.name if self.limit is None else f"{self.name}-limit{self.limit}"
        return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def texts_of(record: Mapping[str, Any]) -> Any:
    """Return the digest of texts in a protocol's record, or None."""
    return record.get(_TEXTS)


@dataclass(frozen=True)
class Cell:
    """A cell: the unit of work and storage.

    Attributes:
        model: name, `<organisation>/<model>`.
        revision: the commit, or a digest of the model's files.
        repair: repair against length collapse.
        task: name of the task, unique among all sources.
        protocol: all other conditions of the score.
    """

    model: str
    revision: str
    repair: Repair
    task: str
    protocol: Protocol

    def __str__(self) -> str:
        limit = "" if self.protocol.limit is None else f" (limit {self.protocol.limit})"
        return f"{self.model.rpartition('/')[2]}, {self.repair}, {self.task}{limit}"
