"""Cells (model × repair × task under a protocol) and their identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lcbench.repair.repair import Repair

# What `Protocol.texts` is called in keys and in provenance: results on users' disks have it so.
_TEXTS = "docs"


@dataclass(frozen=True)
class Protocol:
    """The conditions that must be equal for two scores to be comparable.

    Attributes:
        name: name of its config.
        prompts: `none`: texts are encoded as they are; `model`: with the prompts that the model's
            own files have; `registry`: with the prompts and instructions that mteb's registry has
            for the model.
        dtype: of weights and activations; `tf32`: float32, with its products taken in TF32.
        splits: which splits of a task are scored: a rule, or names joined by commas.
        subsets: the subsets or languages that tasks are restricted to; None: all.
        window: None: each model's own; else tokens.
        texts: the digest of a task's texts (`Source.digest`); None: they are datasets of the hub,
            whose commits tasks name.
        pooling: the one that was asked for in the place of a model's; None: the model's.
        own_code: whether code that the model names itself may run (`model.trust_remote_code`).
        limit: how many items of each split and subset are scored, drawn at random
            (`tasks.limit`); None: all of them.
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

    @property
    def record(self) -> dict[str, Any]:
        """The fields as a cell's provenance has them."""
        fields = {_TEXTS if name == "texts" else name: one for name, one in asdict(self).items()}
        if self.limit is None:
            del fields["limit"]
        return fields

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Protocol:
        """Return the protocol that a cell's provenance has.

        Raises:
            TypeError: it has other fields.
        """
        return cls(
            **{"texts" if name == _TEXTS else name: one for name, one in dict(record).items()}
        )

    @property
    def key(self) -> str:
        """The name and a short digest of everything else: a folder of results."""
        fields = self.record
        if self.subsets is None:
            # So that results from before there was such a restriction are still found.
            del fields["subsets"]
        if self.pooling is None:
            del fields["pooling"]
        if not self.own_code:
            del fields["own_code"]
        content = json.dumps(fields, sort_keys=True)
        # Whoever finds the folder sees what is in it.
        name = self.name if self.limit is None else f"{self.name}-limit{self.limit}"
        return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def texts_of(record: Mapping[str, Any]) -> Any:
    """Return the digest of texts that a protocol names, as provenance has it; None: it has none."""
    return record.get(_TEXTS)


@dataclass(frozen=True)
class Cell:
    """A cell: the unit of work and storage.

    Attributes:
        model: name, `<organisation>/<model>`.
        revision: the commit, or a digest of the model's files.
        repair: what is tried against length collapse.
        task: its name, which tasks of two sources never share.
        protocol: what else a score depends on.
    """

    model: str
    revision: str
    repair: Repair
    task: str
    protocol: Protocol

    def __str__(self) -> str:
        limit = "" if self.protocol.limit is None else f" (limit {self.protocol.limit})"
        return f"{self.model.rpartition('/')[2]}, {self.repair}, {self.task}{limit}"
