"""Cells of a made-up model, and what was scored of them, as a folder of results takes them."""

import mteb
import pyarrow as pa
from mteb.models.model_meta import ModelMeta

from lcbench.repair.repair import Repair
from lcbench.results.cell import Cell, Protocol
from lcbench.results.folder import Finished
from lcbench.tempscale.policy import BASELINE, Policy

PROTOCOL = Protocol("paper", "none", "float32", "test", subsets=None, window=512, texts=None)
VERSIONS = {"mteb": "2.26.24", "torch": "2.13.0"}


def cell(policy: Policy = BASELINE, task: str = "STSBenchmark") -> Cell:
    return Cell("some/model", "f" * 40, Repair(policy), task, PROTOCOL)


def outcome(of: Cell, score: float) -> Finished:
    task = mteb.get_task(of.task)
    scores = {"test": {"default": {"main_score": score, "cosine_spearman": score}}}
    result = mteb.results.TaskResult.from_task_results(task, scores, evaluation_time=1.0)
    kwargs = dict(of.repair.parts) or None
    meta = ModelMeta.create_empty(
        overwrites={"name": of.model, "revision": of.revision, "experiment_kwargs": kwargs}
    )
    provenance = {
        "protocol": of.protocol.record,
        "window": 512,
        "task_type": "STS",
        "data": {"dataset": "mteb/stsbenchmark-sts", "origin": "hub"},
        "versions": VERSIONS,
    }
    items = pa.Table.from_pylist([{"id": "0", "tokens": 3, "score": 0.5}])
    return Finished(result.to_disk, meta.to_dict(), provenance, items)
