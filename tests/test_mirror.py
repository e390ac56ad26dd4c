"""Where a task's data comes from, and what is said if it is nowhere."""

from pathlib import Path

import mteb
import pytest

from lcbench.errors import RequestError
from lcbench.tasks import mirror
from lcbench.tasks.mirror import check_reach, missing_subsets, point_at

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


BANKING = "mteb/banking77"


def test_a_folder_without_a_revision_is_the_first_versions(cache: Path) -> None:
    """A local folder ignores the revision that mteb asks for: v2 would silently read v1's data."""
    folder = fill(cache / "mirror" / BANKING)
    first, second = (mteb.get_task(f"Banking77Classification{end}") for end in ("", ".v2"))
    assert first.metadata.dataset["path"] == second.metadata.dataset["path"] == BANKING
    assert first.metadata.revision != second.metadata.revision
    with pytest.raises(RequestError, match="does not say which revision of mteb/banking77") as no:
        point_at(second, cache / "mirror")
    assert first.metadata.revision in str(no.value)
    assert second.metadata.revision in str(no.value)
    assert second.metadata.dataset["path"] == BANKING
    point_at(first, cache / "mirror")
    assert first.metadata.dataset["path"] == str(folder)


def test_tasks_of_one_revision_share_a_folder(cache: Path) -> None:
    fill(cache / "mirror" / "dwzhu" / "LongEmbed")
    for name in ("LEMBQMSumRetrieval", "LEMBNeedleRetrieval"):
        assert point_at(mteb.get_task(name), cache / "mirror").origin.startswith("mirror")


def test_a_revision_that_the_hubs_client_has_noted_is_believed(cache: Path) -> None:
    folder = fill(cache / "mirror" / BANKING)
    first, second = (mteb.get_task(f"Banking77Classification{end}") for end in ("", ".v2"))
    revision = second.metadata.revision
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "test.jsonl.metadata").write_text(f"{revision}\nan etag\n1700000000.0\n")
    with pytest.raises(RequestError, match=f"is revision {revision} of mteb/banking77"):
        point_at(first, cache / "mirror")
    point_at(second, cache / "mirror")
    assert second.metadata.dataset["path"] == str(folder)


def card(folder: Path, *configs: str) -> Path:
    """Fill a dataset's folder with configurations of one row each."""
    folder.mkdir(parents=True)
    lines = ["---", "configs:"]
    for config in configs:
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in ("train", "test"):
            (folder / f"{config}-{split}.jsonl").write_text(
                f'{{"text": "in {config}", "label": "{split}", "lang": "{config}"}}\n'
            )
            lines += [f"  - split: {split}", f"    path: {config}-{split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def test_languages_that_a_mirror_lacks_are_known_before_anything_is_read(cache: Path) -> None:
    card(cache / "mirror" / "mteb" / "amazon_massive_intent", "en", "de")
    task = mteb.get_task("MassiveIntentClassification")
    point_at(task, cache / "mirror")
    missing = missing_subsets(task)
    assert len(missing) == 49
    assert "fr" in missing
    few = mteb.get_task("MassiveIntentClassification", hf_subsets=["en", "de"])
    point_at(few, cache / "mirror")
    assert missing_subsets(few) == []
    # Each from its own configuration: nothing of other languages is read.
    few.load_data()
    assert {name: data["test"]["text"] for name, data in few.dataset.items()} == {
        "de": ["in de"],
        "en": ["in en"],
    }


def test_a_configuration_that_a_mirror_lacks_is_known_as_well(cache: Path) -> None:
    card(cache / "mirror" / "dwzhu" / "LongEmbed", "qmsum")
    for name, missing in (("LEMBQMSumRetrieval", []), ("LEMBNeedleRetrieval", ["needle"])):
        task = mteb.get_task(name)
        point_at(task, cache / "mirror")
        assert missing_subsets(task) == missing


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_splits_of_unlike_columns_are_read_as_longembed_has_them(cache: Path, suffix: str) -> None:
    import datasets

    rows = {
        "corpus": [{"doc_id": "d", "text": "a story"}],
        "queries": [{"qid": "q", "text": "who?"}],
        "qrels": [{"qid": "q", "doc_id": "d"}],
    }
    folder = cache / "mirror" / "dwzhu" / "LongEmbed"
    (folder / "qmsum").mkdir(parents=True)
    card = ["---", "configs:", "- config_name: qmsum", "  data_files:"]
    for split, content in rows.items():
        path = folder / "qmsum" / f"{split}.{suffix}"
        made = datasets.Dataset.from_list(content)
        if suffix == "jsonl":
            made.to_json(path)
        else:
            made.to_parquet(path)
        card += [f"  - split: {split}", f"    path: qmsum/{split}.{suffix}"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    task = mteb.get_task("LEMBQMSumRetrieval")
    point_at(task, cache / "mirror")
    task.load_data()
    assert task.queries == {"test": {"q": "who?"}}
    assert task.corpus == {"test": {"d": {"text": "a story"}}}
    assert task.relevant_docs == {"test": {"q": {"d": 1}}}
