"""Where a task's data comes from, and what is said if it is nowhere."""

from pathlib import Path

import mteb
import pytest

from lcbench.errors import RequestError
from lcbench.tasks import mirror
from lcbench.tasks.mirror import check_reach, point_at

DATASET = "mteb/stsbenchmark-sts"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client and of `datasets`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path


def fill(folder: Path, content: str = '{"a": 1}\n') -> Path:
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(content)
    return folder


def test_a_dataset_in_the_mirror_is_read_from_there(cache: Path) -> None:
    folder = fill(cache / "mirror" / DATASET)
    task = mteb.get_task("STSBenchmark")
    revision = task.metadata.revision
    data = point_at(task, cache / "mirror")
    assert task.metadata.dataset["path"] == str(folder)
    assert (data.dataset, data.revision) == (DATASET, revision)
    assert data.origin.startswith("mirror sha256-")
    check_reach({"STSBenchmark": data}, cache / "mirror", offline=True)
    # Other tasks of the class, and so other requests, are not affected.
    assert mteb.get_task("STSBenchmark").metadata.dataset["path"] == DATASET


def test_the_digest_is_that_of_the_data(cache: Path) -> None:
    one, same, other = (
        point_at(mteb.get_task("STSBenchmark"), cache / name).origin
        for name in ("one", "same", "other")
        if fill(cache / name / DATASET, "{}\n" if name == "other" else '{"a": 1}\n')
    )
    assert one == same != other


def test_a_snapshot_of_the_tasks_own_revision_is_read_from_the_cache(cache: Path) -> None:
    task = mteb.get_task("STSBenchmark")
    repository = cache / "hub" / "datasets--mteb--stsbenchmark-sts" / "snapshots"
    fill(repository / ("0" * 40))
    assert point_at(task, None).origin == "hub"
    folder = fill(repository / task.metadata.revision)
    assert point_at(task, None).origin == "hub snapshot"
    assert task.metadata.dataset["path"] == str(folder)


def test_what_datasets_has_prepared_is_within_reach(cache: Path) -> None:
    data = point_at(mteb.get_task("STSBenchmark"), None)
    (cache / "datasets" / "mteb___stsbenchmark-sts").mkdir(parents=True)
    check_reach({"STSBenchmark": data}, None, offline=True)


def test_what_is_missing_is_named_with_the_remedy(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    data = {name: point_at(mteb.get_task(name), None) for name in ("STSBenchmark", "STS13")}
    with pytest.raises(RequestError) as refused:
        check_reach(data, None, offline=True)
    assert "mteb/stsbenchmark-sts (for STSBenchmark), mteb/sts13-sts (for STS13)" in str(
        refused.value
    )
    assert "offline=true forbids fetching them" in str(refused.value)
    assert "hf download --repo-type dataset" in str(refused.value)
    monkeypatch.setattr(mirror, "network_answers", lambda: False)
    with pytest.raises(RequestError, match="the hub does not answer"):
        check_reach(data, None, offline=False)
    # With a network mteb fetches what is missing.
    monkeypatch.setattr(mirror, "network_answers", lambda: True)
    check_reach(data, None, offline=False)
