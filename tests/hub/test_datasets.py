"""Where a task's data comes from, and what is said if it is nowhere."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import pytest
from observers import Unwarned

from lcbench.errors import MissingError, RequestError, StorageError
from lcbench.hub.datasets import (
    digest_of,
    is_here,
    lacking_in_folders,
    missing_data,
    missing_in,
    missing_subsets,
    point_at,
)
from lcbench.run.checks import fetch_missing
from lcbench.settings.sources import shipped_sources
from lcbench.tasks.mteb_tasks import MtebSource
from lcbench.tasks.registry import TaskChoice, registry
from lcbench.tasks.source import Part
from lcbench.tasks.suites import resolve

DATASET = "mteb/stsbenchmark-sts"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client and of `datasets`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path


def part(name: str, subsets: tuple[str, ...] | None = None) -> Part:
    return Part(name, subsets, ("test",), None, "test", MtebSource())


def fill(folder: Path, content: str = '{"a": 1}\n') -> Path:
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(content)
    return folder


def test_a_dataset_in_the_mirror_is_read_from_there(cache: Path) -> None:
    folder = fill(cache / "mirror" / DATASET)
    task = mteb.get_task("STSBenchmark")
    revision = task.metadata.revision
    data = point_at(task, cache / "mirror")
    assert Path(task.metadata.dataset["path"]).resolve() == folder
    # Nobody knows which commit it is: a result on it is never taken for one on the hub's.
    assert data.revision.startswith("sha256-")
    assert data.revision != revision
    assert (data.dataset, data.origin) == (DATASET, f"mirror {data.revision}")
    assert task.metadata.revision == data.revision
    assert missing_data([part("STSBenchmark")], cache / "mirror") == []
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
    assert not is_here(task)
    folder = fill(repository / task.metadata.revision)
    # The same data, whether the hub's client or `datasets` fetches it.
    assert point_at(task, None).origin == "hub"
    assert is_here(task)
    assert Path(task.metadata.dataset["path"]).resolve() == folder


@pytest.mark.parametrize("below", [".", "hub"])
def test_a_mirror_can_be_laid_out_as_the_hubs_cache(cache: Path, below: str) -> None:
    """As prefetch fills it, or a site's HF_HUB_CACHE, or an HF_HOME."""
    first, second = (mteb.get_task(f"Banking77Classification{end}") for end in ("", ".v2"))
    repository = cache / "mirror" / below / "datasets--mteb--banking77" / "snapshots"
    # A plain folder beside it, whose revision nobody knows, does not count.
    fill(cache / "mirror" / BANKING)
    for task in (first, second):
        folder = fill(repository / task.metadata.revision).resolve()
        assert point_at(task, cache / "mirror").origin == "hub"
        assert Path(task.metadata.dataset["path"]).resolve() == folder
    names = ["Banking77Classification", "Banking77Classification.v2"]
    assert missing_data([part(name) for name in names], cache / "mirror") == []


def test_what_datasets_has_prepared_is_not_read(cache: Path) -> None:
    """It cannot be asked for a revision, and the files of the hub lie beside it as a rule."""
    task = mteb.get_task("STSBenchmark")
    prepared = cache / "datasets" / "mteb___stsbenchmark-sts" / "default" / "0.0.0"
    (prepared / task.metadata.revision).mkdir(parents=True)
    with pytest.raises(MissingError) as refused:
        fetch_missing([part("STSBenchmark")], None, Unwarned(), offline=True)
    told = str(refused.value)
    assert "and data prepared by `datasets` is not used, and offline=true forbids fetching" in told
    assert "\n  mteb/stsbenchmark-sts (for STSBenchmark)\n" in told
    assert "python -m lcbench prefetch" in told


def test_what_is_missing_is_named_once_a_dataset(cache: Path) -> None:
    names = ["STSBenchmark", "DocstringRetrieval", "LEMBQMSumRetrieval", "LEMBNeedleRetrieval"]
    parts = [resolve(TaskChoice(name), "test", None, shipped_sources()) for name in names]
    assert missing_data(parts, cache / "mirror") == [
        "mteb/stsbenchmark-sts (for STSBenchmark)",
        "dwzhu/LongEmbed (for LEMBQMSumRetrieval, LEMBNeedleRetrieval)",
    ]


def test_languages_that_a_snapshot_lacks_are_named(cache: Path) -> None:
    """Of a snapshot that was made for other languages, by the patterns of its card alone."""
    name = "MassiveIntentClassification"
    revision = mteb.get_task(name).metadata.revision
    repository = cache / "hub" / "datasets--mteb--amazon_massive_intent"
    folder = card(repository / "snapshots" / revision, "en", "de", "fr")
    for path in folder.glob("fr-*"):
        path.unlink()
    assert missing_data([part(name, ("en", "de"))], None) == []
    lacking = "mteb/amazon_massive_intent (for MassiveIntentClassification): "
    found = missing_data([part(name, ("en", "fr"))], None)
    assert found == [lacking + "fr-train.jsonl, fr-test.jsonl"]
    few = mteb.get_task(name, hf_subsets=["en", "de"])
    assert point_at(few, None).origin == "hub"
    few.load_data()
    assert few.dataset["de"]["test"]["text"] == ["in de"]


def test_files_of_a_snapshot_are_compared_with_the_trees_sizes(cache: Path) -> None:
    task = mteb.get_task("STSBenchmark")
    repository = cache / "hub" / "datasets--mteb--stsbenchmark-sts"
    folder = fill(repository / "snapshots" / task.metadata.revision)
    sizes = {"test.jsonl": 9, "train.jsonl": 100, ".gitattributes": 50}
    tree = {path: {"size": size, "blob_id": "0" * 40} for path, size in sizes.items()}
    (repository / "trees").mkdir()
    (repository / "trees" / f"{task.metadata.revision}.json").write_text(
        json.dumps({"format_version": 1, "files": tree})
    )
    lacking = "mteb/stsbenchmark-sts (for STSBenchmark): "
    assert missing_data([part("STSBenchmark")], None) == [lacking + "train.jsonl"]
    (folder / "train.jsonl").write_text("x" * 100)
    assert missing_data([part("STSBenchmark")], None) == []
    (folder / "test.jsonl").write_text("cut")
    assert missing_data([part("STSBenchmark")], None) == [lacking + "test.jsonl"]
    assert point_at(task, None).origin == "hub"
    assert not is_here(task)


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
    assert Path(first.metadata.dataset["path"]).resolve() == folder


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
    assert Path(second.metadata.dataset["path"]).resolve() == folder


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


def test_what_a_plain_folder_lacks_is_known_without_mteb(cache: Path) -> None:
    card(cache / "mirror" / "mteb" / "amazon_massive_intent", "en", "de")
    card(cache / "mirror" / "dwzhu" / "LongEmbed", "qmsum")
    names = ["MassiveIntentClassification", "LEMBQMSumRetrieval", "LEMBNeedleRetrieval"]
    parts = [resolve(TaskChoice(name), "test", None, shipped_sources()) for name in names]
    massive, needle = lacking_in_folders(parts, cache / "mirror")
    assert massive.startswith("mteb/amazon_massive_intent (for MassiveIntentClassification): af")
    assert massive.endswith("; its folder has en, de")
    assert needle == "dwzhu/LongEmbed (for LEMBNeedleRetrieval): needle; its folder has qmsum"
    few = resolve(TaskChoice(names[0]), "test", ("en",), shipped_sources())
    assert lacking_in_folders([few, parts[1]], cache / "mirror") == []


def test_a_card_that_cannot_be_read_is_named(cache: Path) -> None:
    folder = fill(cache / "mirror" / DATASET)
    (folder / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(RequestError, match=r"README\.md cannot be read as the card"):
        lacking_in_folders(
            [resolve(TaskChoice("STSBenchmark"), "test", None, shipped_sources())], cache / "mirror"
        )


def test_what_a_task_reads_in_a_way_of_its_own_is_not_judged_by_names(cache: Path) -> None:
    entry = registry().tasks["NTREXBitextMining"]
    assert entry.loading == "own"
    folder = card(cache / "mirror" / entry.dataset, "whatever")
    assert missing_in(entry, None, folder) == []


def test_a_folder_whose_files_were_changed_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    folder = tmp_path / "mirror" / "mteb" / "stsbenchmark-sts"
    folder.mkdir(parents=True)

    def rows(count: int) -> tuple[int, str]:
        frame = {"sentence1": ["a"] * count, "sentence2": ["b"] * count, "score": [1.0] * count}
        datasets.Dataset.from_dict(frame).to_parquet(folder / "test-00000.parquet")
        task = mteb.get_task("STSBenchmark")
        data = point_at(task, tmp_path / "mirror")
        task.load_data()
        return len(task.dataset["test"]), data.origin

    (many, first), (few, second) = rows(7), rows(3)
    assert (many, few) == (7, 3)
    assert first != second


def stated(folder: Path, data: str) -> Path:
    """Let a dataset's card name something as its data."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.jsonl").write_text('{"a": 1}\n')
    text = f"---\nconfigs:\n- config_name: default\n  {data}\n---\n"
    (folder / "README.md").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("data_files: webhdfs://127.0.0.1:1/x.jsonl", "an address"),
        ("data_files: 'http://127.0.0.1/x.jsonl'", "an address"),
        ("data_files: file:/etc/x.jsonl", "an address"),
        ("data_files: 'zip://x.jsonl::test.zip'", "an address"),
        ("data_files: [{split: test, path: ftp://127.0.0.1/x.jsonl}]", "an address"),
        ("data_files: {test: [/etc/x.jsonl]}", "an absolute path"),
        ("data_files: ~/x.jsonl", "an absolute path"),
        ("data_files: a/../../x.jsonl", "outside the folder"),
        ("data_dir: ..", "outside the folder"),
        ("data_dir: /etc", "an absolute path"),
        ("data_files: .cache/x.jsonl", "hidden"),
        ("data_files: .git*/x.jsonl", "hidden"),
        (f"data_files: '{'*a' * 40}b'", "wildcards"),
        (f"data_files: '{'**/' * 40}x.jsonl'", "wildcards"),
    ],
)
def test_a_card_names_files_of_its_own_folder_alone(cache: Path, data: str, why: str) -> None:
    """`datasets` would read them: other files, addresses without a network, for hours."""
    folder = stated(cache / "mirror" / DATASET, data)
    # A name that makes the pattern try all there is.
    (folder / ("a" * 200)).touch()
    asked = [resolve(TaskChoice("STSBenchmark"), "test", None, shipped_sources())]
    with pytest.raises(RequestError, match=f"names .* as data: .*{why}"):
        lacking_in_folders(asked, cache / "mirror")
    with pytest.raises(RequestError, match=why):
        point_at(mteb.get_task("STSBenchmark"), cache / "mirror")


def test_a_snapshots_card_names_files_of_its_own_folder_alone(cache: Path) -> None:
    task = mteb.get_task("STSBenchmark")
    repository = cache / "hub" / "datasets--mteb--stsbenchmark-sts"
    folder = stated(repository / "snapshots" / task.metadata.revision, "data_files: test.jsonl")
    card = (folder / "README.md").read_text()
    other = "- config_name: other\n  data_files: http://127.0.0.1/x.csv\n---\n"
    (folder / "README.md").write_text(card.removesuffix("---\n") + other)
    with pytest.raises(RequestError, match="an address"):
        point_at(task, None)


@pytest.mark.parametrize(
    "pattern", ["data/*/train-*-of-*.parquet", "**/*.parquet", "./test.jsonl", "a/b:c.jsonl"]
)
def test_plain_patterns_of_a_card_are_followed(cache: Path, pattern: str) -> None:
    folder = stated(cache / DATASET, f"data_files: '{pattern}'")
    (folder / ("x" * 100)).touch()
    assert digest_of(folder).startswith("sha256-")


@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("use", ["config_name: *i", "<<: *i", "data_files: *i"])
def test_a_yaml_bomb_is_refused(cache: Path, file: str, use: str) -> None:
    folder = fill(cache / "mirror" / DATASET)
    lines = ["a: &a {x: 1}" if use.startswith("<<") else "a: &a [x, x, x]"]
    for one, next_ in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{next_}: &{next_} [{', '.join([f'*{one}'] * 10)}]")
    text = "\n".join([*lines, "configs:", f"- {use}", "  other: 1"])
    (folder / file).write_text(f"---\n{text}\n---\n" if file == "README.md" else text)
    with pytest.raises(RequestError, match=r"its aliases expand to too many nodes"):
        lacking_in_folders(
            [resolve(TaskChoice("STSBenchmark"), "test", None, shipped_sources())], cache / "mirror"
        )


def test_a_card_within_itself_is_refused(cache: Path) -> None:
    folder = fill(cache / DATASET)
    (folder / "README.md").write_text("---\nconfigs: &a [*a]\n---\n")
    with pytest.raises(RequestError, match=r"its aliases expand to too many nodes"):
        digest_of(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("test.jsonl", "test.jsonl.xz", "test.csv.bz2", "test.json.zst", "test.tar", "x.ndjson"),
        *("README.md", ".huggingface.yaml", "dataset_infos.json", "inner/deep/test.arrow", "test"),
    ],
)
def test_the_digest_covers_every_file(cache: Path, name: str) -> None:
    digests = []
    for content in ("a: 1", "a: 2"):
        folder = fill(cache / content)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        digests.append(digest_of(folder))
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "Permission denied"),
        (errno.EPERM, "Operation not permitted (its file system, like exFAT"),
    ],
)
def test_a_link_that_cannot_be_made_is_reported_with_the_remedy(
    cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    folder = fill(cache / "mirror" / DATASET)
    monkeypatch.setenv("LCBENCH_CACHE", str(cache / "own"))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(StorageError) as raised:
        point_at(mteb.get_task("STSBenchmark"), cache / "mirror")
    said = str(raised.value)
    assert said.startswith(f"{cache / 'own' / 'mirror'}/")
    assert f", a symbolic link to {folder}, could not be made: {reason}" in said
    assert said.endswith("with the environment variable LCBENCH_CACHE=PATH.")


def test_what_is_noted_next_to_a_dataset_is_not_in_its_digest(cache: Path) -> None:
    one, two = fill(cache / "one"), fill(cache / "two")
    for noise in (".git/HEAD", ".cache/huggingface/x.metadata", "inner/.cache/x"):
        (two / noise).parent.mkdir(parents=True)
        (two / noise).write_text("when it was fetched")
    assert digest_of(one) == digest_of(two)


def test_the_digest_tells_names_from_contents(cache: Path) -> None:
    one, two = fill(cache / "one", "x"), fill(cache / "two", "x")
    (two / "test.jsonl").rename(two / "train.jsonl")
    assert digest_of(one) != digest_of(two)


def test_linked_folders_are_read_and_digested(cache: Path) -> None:
    """Without, two mirrors behind links had one digest, of nothing, and shared what was read."""
    digests = []
    for name, content in (("one", '{"a": 1}\n'), ("two", '{"a": 2}\n')):
        fill(cache / name, content)
        mirror = cache / f"mirror-{name}" / DATASET
        mirror.mkdir(parents=True)
        (mirror / "data").symlink_to(cache / name, target_is_directory=True)
        digests.append(digest_of(mirror))
    assert digests[0] != digests[1]
    (cache / "one" / "test.jsonl").write_text('{"a": 3}\n')
    assert digest_of(cache / "mirror-one" / DATASET) not in digests


def test_two_mirrors_never_share_what_was_read_of_them(cache: Path) -> None:
    """`datasets` keeps it under the name of the folder that it read."""
    names = set()
    for mirror in ("one", "two"):
        fill(cache / mirror / DATASET)
        task = mteb.get_task("STSBenchmark")
        point_at(task, cache / mirror)
        names.add(Path(task.metadata.dataset["path"]).name)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: os.mkfifo(folder / "test.parquet"), "neither a file nor a folder"),
        (lambda folder: os.mkfifo(folder / "README.md"), "neither a file nor a folder"),
        (lambda folder: (folder / "x.csv").symlink_to("/dev/zero"), "neither a file nor a folder"),
        (lambda folder: (folder / "x.csv").symlink_to("nowhere"), "dangling link"),
        (lambda folder: (folder / "x").symlink_to(folder), "a folder that contains it"),
        (lambda folder: (folder / "x").symlink_to(folder.parent), "a folder that contains it"),
        (lambda folder: (folder / "x").symlink_to("x"), "cannot be read: Too many levels"),
        (lambda folder: (folder / "test.jsonl").unlink(), "has no files"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(
    cache: Path, make: Callable[[Path], None], why: str
) -> None:
    folder = fill(cache / "mirror" / DATASET)
    make(folder)
    asked = [resolve(TaskChoice("STSBenchmark"), "test", None, shipped_sources())]
    with pytest.raises(RequestError, match=why) as no:
        lacking_in_folders(asked, cache / "mirror")
    assert str(folder) in str(no.value)


def test_links_that_multiply_are_refused(cache: Path) -> None:
    folder = fill(cache / "mirror" / DATASET)
    for level in range(20):
        place = folder / f"level-{level}"
        place.mkdir()
        for side in ("a", "b"):
            (place / side).symlink_to(folder / f"level-{level + 1}")
    (folder / "level-20").mkdir()
    with pytest.raises(RequestError, match="more than 10,000 folders"):
        digest_of(folder)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_read_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Without the rights being taken away, which the tests' own user may not feel."""
    folder = fill(cache / "mirror" / DATASET)

    def refuse(path: Any, *arguments: Any, **keys: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    if what == "file":
        monkeypatch.setattr(Path, "open", refuse)
    else:
        monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(RequestError, match="cannot be read: Permission denied"):
        digest_of(folder)
