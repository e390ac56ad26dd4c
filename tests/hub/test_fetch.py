"""Prefetch against a hub on this machine: what is fetched, verified, recorded, and what fails."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from composed import composed
from engines import settings as model_settings
from hub_server import Hub, Repository, serving
from observers import Recorded

from lcbench.cli import prefetch as command
from lcbench.errors import MissingError, RequestError
from lcbench.hub import cache as lcbench_hub
from lcbench.hub import fetch as prefetch
from lcbench.hub import ledger
from lcbench.hub.datasets import missing_data
from lcbench.hub.models import locate
from lcbench.settings import read, schema
from lcbench.system.words import size
from lcbench.tasks.mteb_tasks import MtebSource
from lcbench.tasks.registry import registry
from lcbench.tasks.source import Part

MODEL, COMMIT = "tests/tiny", "a" * 40
KEYS = ("model=custom", f"model.name={MODEL}")


def dataset(task: str, *configs: str) -> Repository:
    """Return a task's dataset: for each configuration two splits of a few hundred bytes."""
    entry = registry().tasks[task]
    card = "---\nconfigs:\n"
    files = {".gitattributes": b"*.parquet filter=lfs\n", "loader.py": b"1/0\n"}
    for config in configs:
        card += f"- config_name: {config}\n  data_files:\n"
        for split in ("train", "test"):
            path = f"{config}/{split}.parquet"
            card += f"  - split: {split}\n    path: {path}\n"
            files[path] = f"{task} {path} ".encode() * 20
    files["README.md"] = f"{card}---\n".encode()
    return Repository("dataset", entry.dataset, entry.revision, files)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, make_model: Callable[[str], Path]) -> Iterator[Hub]:
    """A hub with a model and three datasets."""
    repositories = (
        Repository.of_folder("model", MODEL, COMMIT, make_model("bert")),
        dataset("STSBenchmark", "default"),
        dataset("MassiveIntentClassification", "en", "de", "fr"),
        dataset("LEMBQMSumRetrieval", "2wikimqa", "narrativeqa", "qmsum", "needle"),
    )
    with serving(*repositories) as served:
        repositories[0].files["onnx/config.json"] = b"{}"
        repositories[0].files["README.md"] = b"# A model\n"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            served.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
        yield served


def fetch(folder: Path, *overrides: str, verify: bool = False) -> tuple[dict[str, str], str]:
    """Prefetch into a folder; return what failed, and what was printed."""
    config = composed(*overrides, f"mirror={folder}", config="prefetch")
    observer = Recorded()
    failed = command.prefetch(read.read({"custom": config}), observer, verify=verify)
    return failed, observer.text


def snapshot(folder: Path, kind: str, name: str, commit: str) -> Path:
    return folder / f"{kind}s--{name.replace('/', '--')}" / "snapshots" / commit


def data_of(folder: Path, task: str) -> Path:
    entry = registry().tasks[task]
    return snapshot(folder, "dataset", entry.dataset, entry.revision)


def files_in(folder: Path) -> list[str]:
    return [path for path in lcbench_hub.files_in(folder) if path != "README.md"]


def test_a_model_and_datasets_and_nothing_that_is_not_read(hub: Hub, tmp_path: Path) -> None:
    tasks = "tasks=[STSBenchmark,LEMBQMSumRetrieval,LEMBNarrativeQARetrieval,DocstringRetrieval]"
    failed, screen = fetch(tmp_path / "m", *KEYS, tasks)
    assert failed == {}
    model = snapshot(tmp_path / "m", "model", MODEL, COMMIT)
    expected = set(hub.repositories[0].files) - {"README.md", "onnx/config.json"}
    assert set(files_in(model)) == expected
    assert not (model / "README.md").exists()
    splits = ("test", "train")
    assert files_in(data_of(tmp_path / "m", "STSBenchmark")) == [
        f"default/{split}.parquet" for split in splits
    ]
    # The first configuration is there for `datasets`, the others for the two tasks.
    assert files_in(data_of(tmp_path / "m", "LEMBQMSumRetrieval")) == [
        f"{config}/{split}.parquet"
        for config in ("2wikimqa", "narrativeqa", "qmsum")
        for split in splits
    ]
    assert f"model {MODEL}" in screen
    assert "aaaaaaaa" in screen
    # Large files are asked for once.
    large = [one for one in hub.requests if one.startswith("GET /large")]
    assert len(large) == len(set(large)) == 9


def test_progress_goes_to_the_observer(hub: Hub, tmp_path: Path) -> None:
    lines: list[str] = []

    class Watched(Recorded):
        is_live = True

        @contextmanager
        def live(self, line: Callable[[], str]) -> Iterator[None]:
            lines.append(line())
            yield
            lines.append(line())

    config = composed(*KEYS, "tasks=[DocstringRetrieval]", f"mirror={tmp_path}", config="prefetch")
    assert command.prefetch(read.read({"custom": config}), Watched(), verify=False) == {}
    model = snapshot(tmp_path, "model", MODEL, COMMIT)
    whole = size(sum((model / path).stat().st_size for path in files_in(model)))
    assert list(dict.fromkeys(line.partition(" …")[0] for line in lines[:-2])) == [
        "looking up the models and datasets of these tasks",
        f"looking for 1 model or dataset in {tmp_path}",
        "asking the hub for the files of 1 model or dataset",
    ]
    said = [line for line in lines if line.startswith("fetching")]
    assert said == [f"fetching {MODEL}: {here} of {whole}" for here in (size(0), whole)]


def test_what_was_fetched_is_recorded(hub: Hub, tmp_path: Path) -> None:
    fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")
    content = json.loads((tmp_path / "lcbench-manifest.json").read_text())
    by_name = {one["name"]: one for one in content["repositories"]}
    model = by_name[MODEL]
    assert (model["kind"], model["revision"], model["asked"]) == ("model", COMMIT, None)
    assert model["users"] == {"custom": None}
    assert model["hub"] == hub.address
    data = by_name["mteb/stsbenchmark-sts"]
    assert data["users"] == {"STSBenchmark": None}
    assert set(data["files"]) == {"README.md", "default/test.parquet", "default/train.parquet"}
    for name, record in data["files"].items():
        content_of = hub.repositories[1].files[name]
        assert record == {
            "size": len(content_of),
            "sha256": hashlib.sha256(content_of).hexdigest(),
        }


def test_the_second_time_the_hub_is_not_asked(hub: Hub, tmp_path: Path) -> None:
    fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")
    hub.requests.clear()
    failed, screen = fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")
    assert failed == {}
    assert "0 bytes to fetch" in screen
    assert hub.requests == []
    # Its digests are compared again only if that is asked for; nothing is sent for it.
    hub.sent.clear()
    assert fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]", verify=True)[0] == {}
    assert hub.requests
    assert hub.sent == {}


def test_a_model_without_a_revision_is_found_offline_at_the_one_that_was_fetched(
    hub: Hub, tmp_path: Path
) -> None:
    fetch(tmp_path, *KEYS, "tasks=[DocstringRetrieval]")
    asked = model_settings(tmp_path, name=MODEL, source="hub")
    located = locate(asked, mirror=tmp_path, offline=True)
    assert (located.name, located.revision) == (MODEL, COMMIT)
    assert located.folder.is_relative_to(tmp_path)
    # Another prefetch keeps that commit, whatever main has become.
    main = hub.repositories[0]
    hub.repositories[0] = Repository(main.kind, main.name, "b" * 40, main.files)
    assert fetch(tmp_path, *KEYS, "tasks=[DocstringRetrieval]")[0] == {}
    assert locate(asked, mirror=tmp_path, offline=True).revision == COMMIT


def test_languages_are_fetched_as_they_are_asked_for(hub: Hub, tmp_path: Path) -> None:
    task = "tasks=[MassiveIntentClassification]"
    keys = ("model=minilm", task)
    fetch(tmp_path, *keys, "subsets=[en]")
    folder = data_of(tmp_path, "MassiveIntentClassification")
    assert files_in(folder) == ["en/test.parquet", "en/train.parquet"]
    few = Part("MassiveIntentClassification", ("en", "fr"), ("test",), None, "test", MtebSource())
    assert missing_data([few], tmp_path) == [
        "mteb/amazon_massive_intent (for MassiveIntentClassification): "
        "fr/test.parquet, fr/train.parquet"
    ]
    hub.sent.clear()
    fetch(tmp_path, *keys, "subsets=[fr]")
    assert sorted(hub.sent) == ["fr/test.parquet", "fr/train.parquet"]
    assert missing_data([few], tmp_path) == []
    entries = ledger.read(tmp_path)
    (entry,) = entries.values()
    assert entry.users == {"MassiveIntentClassification": ["en", "fr"]}
    assert len(entry.files) == 5


def test_a_damaged_file_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.damaged["default/test.parquet"] = 1
    assert fetch(tmp_path, "tasks=[STSBenchmark]")[0] == {}
    folder = data_of(tmp_path, "STSBenchmark")
    content = hub.repositories[1].files["default/test.parquet"]
    assert (folder / "default" / "test.parquet").read_bytes() == content
    assert hub.sent["default/test.parquet"] == 2 * len(content)
    assert hub.sent["default/train.parquet"] < 2 * len(content)


def test_a_file_that_stays_damaged_is_removed_and_the_rest_is_fetched(
    hub: Hub, tmp_path: Path
) -> None:
    hub.damaged["default/test.parquet"] = 99
    failed, screen = fetch(tmp_path, *KEYS, "tasks=[STSBenchmark,LEMBQMSumRetrieval]")
    (name, reason) = failed.popitem()
    assert failed == {}
    assert name.startswith("dataset mteb/stsbenchmark-sts (revision b0fddb56")
    assert "wrong digest after two tries: default/test.parquet" in reason
    assert "FAILED" in screen
    assert files_in(data_of(tmp_path, "STSBenchmark")) == ["default/train.parquet"]
    blobs = list((tmp_path / "datasets--mteb--stsbenchmark-sts" / "blobs").iterdir())
    assert len(blobs) == 2
    names = {name for _, name, _ in ledger.read(tmp_path)}
    assert names == {MODEL, "dwzhu/LongEmbed"}


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub's client keeps whole chunks: of 10 MB, more than the model has.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 65536)
    hub.cut["model.safetensors"] = 1_000_000
    assert fetch(tmp_path, *KEYS, "tasks=[DocstringRetrieval]")[0] == {}
    size = len(hub.repositories[0].files["model.safetensors"])
    ((path, start),) = hub.ranges
    assert path == "model.safetensors"
    assert 0 < start < size
    # What was on its way when the connection broke is sent twice, no more.
    assert size <= hub.sent["model.safetensors"] < size + 1_000_000


def test_what_cannot_be_fetched_is_reported_and_the_rest_is_fetched(
    hub: Hub, tmp_path: Path
) -> None:
    hub.gated.add("dwzhu/LongEmbed")
    hub.repositories[1] = Repository("dataset", "mteb/stsbenchmark-sts", "0" * 40, {})
    tasks = "tasks=[STSBenchmark,LEMBQMSumRetrieval,STS13,MassiveIntentClassification]"
    failed, _ = fetch(tmp_path, *KEYS, tasks)
    reasons = {name.split()[1]: reason for name, reason in failed.items()}
    # This hub has three languages, and all were asked for.
    languages = reasons.pop("mteb/amazon_massive_intent")
    assert languages.startswith("mteb/amazon_massive_intent has no af, am, ar")
    assert "which MassiveIntentClassification reads" in languages
    assert reasons == {
        "mteb/stsbenchmark-sts": "there is no such revision",
        "dwzhu/LongEmbed": (
            "it is gated: accept its terms on the hub, then log in with `hf auth login`"
        ),
        "mteb/sts13-sts": (
            "there is no such repository, or it is private: log in with `hf auth login`"
        ),
    }
    assert {name for _, name, _ in ledger.read(tmp_path)} == {MODEL}


def test_pickled_weights_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    files = hub.repositories[0].files
    hub.repositories[0] = Repository(
        "model", MODEL, COMMIT, {"config.json": files["config.json"], "pytorch_model.bin": b"x"}
    )
    failed, _ = fetch(tmp_path, *KEYS, "tasks=[DocstringRetrieval]")
    assert "it has no safetensors weights" in failed[f"model {MODEL}, for custom"]


def test_truncated_files_are_found_and_fetched_alone(hub: Hub, tmp_path: Path) -> None:
    fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")
    data = data_of(tmp_path, "STSBenchmark") / "default" / "test.parquet"
    weights = snapshot(tmp_path, "model", MODEL, COMMIT) / "model.safetensors"
    for path in (data, weights):
        path.resolve().write_bytes(path.read_bytes()[:100])
    with pytest.raises(MissingError) as missing:
        fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]", "offline=true")
    assert missing.value.missing == (
        f"model {MODEL}, for custom: model.safetensors",
        "dataset mteb/stsbenchmark-sts (revision b0fddb56ed78048fa8b90373c8a3cfc37b684831), "
        "for STSBenchmark: default/test.parquet",
    )
    with pytest.raises(MissingError, match=r"model=custom: tests/tiny: model\.safetensors"):
        locate(model_settings(tmp_path, name=MODEL, source="hub"), mirror=tmp_path, offline=True)
    hub.sent.clear()
    assert fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")[0] == {}
    assert sorted(hub.sent) == ["default/test.parquet", "model.safetensors"]
    assert fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]", "offline=true")[0] == {}


def test_verify_finds_what_sizes_do_not_show(hub: Hub, tmp_path: Path) -> None:
    fetch(tmp_path, "tasks=[STSBenchmark]")
    path = data_of(tmp_path, "STSBenchmark") / "default" / "test.parquet"
    content = path.read_bytes()
    path.resolve().write_bytes(content[:-1] + b"!")
    assert fetch(tmp_path, "tasks=[STSBenchmark]", "offline=true")[0] == {}
    with pytest.raises(MissingError, match=r"damaged or never .*: default/test\.parquet"):
        fetch(tmp_path, "tasks=[STSBenchmark]", "offline=true", verify=True)
    assert fetch(tmp_path, "tasks=[STSBenchmark]", verify=True)[0] == {}
    assert path.read_bytes() == content
    assert fetch(tmp_path, "tasks=[STSBenchmark]", "offline=true", verify=True)[0] == {}


def test_a_copy_without_symbolic_links_is_as_good(hub: Hub, tmp_path: Path) -> None:
    fetch(tmp_path / "one", *KEYS, "tasks=[STSBenchmark]")
    shutil.copytree(tmp_path / "one", tmp_path / "two", symlinks=False)
    shutil.rmtree(tmp_path / "one")
    for blobs in (tmp_path / "two").glob("*/blobs"):
        shutil.rmtree(blobs)
    hub.requests.clear()
    assert fetch(tmp_path / "two", *KEYS, "tasks=[STSBenchmark]")[0] == {}
    assert hub.requests == []


def test_what_does_not_fit_is_refused_beforehand(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(tmp_path))(2000, 1000, 1000)
    monkeypatch.setattr("lcbench.hub.fetch.shutil.disk_usage", lambda _: usage)
    with pytest.raises(
        RequestError, match=r"MB must be fetched, but its disk has only 1.0 kB free"
    ):
        fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")
    assert hub.sent.keys() == {"README.md"}


def test_without_a_network_all_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for offline, why in (("false", "does not respond"), ("true", "offline=true forbids")):
        with pytest.raises(MissingError, match=why) as missing:
            fetch(tmp_path / "none", "sweep=paper", f"offline={offline}", "model=bge")
        assert len(missing.value.missing) == 38
        assert not (tmp_path / "none").exists()


def test_two_at_once_are_one_too_many(hub: Hub, tmp_path: Path) -> None:
    with (
        prefetch._only_one(tmp_path),
        pytest.raises(RequestError, match="another prefetch is writing to it"),
    ):
        fetch(tmp_path, "tasks=[STSBenchmark]")
    assert fetch(tmp_path, "tasks=[STSBenchmark]")[0] == {}


def test_leftovers_of_killed_downloads_are_removed(tmp_path: Path) -> None:
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    old, new, whole = (blobs / name for name in ("1.x.incomplete", "2.x.incomplete", "3"))
    for path in (old, new, whole):
        path.touch()
    for path in (old, whole):
        os.utime(path, (time.time() - 3600,) * 2)
    prefetch.remove_leftovers(tmp_path)
    assert sorted(blobs.iterdir()) == [new, whole]


@pytest.mark.parametrize("call", ["scandir", "stat", "unlink"])
def test_leftovers_that_cannot_be_seen_or_removed_stop_no_prefetch(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    leftover = tmp_path / "models--a--b" / "blobs" / "1.x.incomplete"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    os.utime(leftover, (time.time() - 3600,) * 2)
    at, real = leftover.parent if call == "scandir" else leftover, getattr(os, call)

    def refuse(path: Any, *given: Any, **more: Any) -> Any:
        if str(path) == str(at):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *given, **more)

    monkeypatch.setattr(os, call, refuse)
    assert fetch(tmp_path, "tasks=[STSBenchmark]")[0] == {}
    monkeypatch.undo()
    assert leftover.exists()


def test_a_hub_that_goes_away_is_not_waited_for_again_and_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        raise ConnectionError("gone")

    monkeypatch.setattr(prefetch, "_RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(prefetch, "fetch", fail)
    failed, _ = fetch(tmp_path, *KEYS, "tasks=[STSBenchmark,LEMBQMSumRetrieval]")
    assert list(failed.values()) == [
        "ConnectionError: gone",
        "the hub (http://127.0.0.1:9) does not respond",
        "the hub (http://127.0.0.1:9) does not respond",
    ]


def test_what_is_not_on_the_hub_needs_no_fetching(tmp_path: Path) -> None:
    failed, screen = fetch(tmp_path / "none")
    assert (failed, screen) == ({}, "Nothing to download: all models and datasets are local.\n")
    assert not (tmp_path / "none").exists()


def test_every_part_of_an_aggregate_is_wanted_and_models_of_packages_are_not() -> None:
    config = composed("tasks=[CQADupstackRetrieval,STS12,docs]", config="prefetch")
    wanted = command.wanted_of(read.read({"minilm": config}))
    parts = registry().tasks["CQADupstackRetrieval"].parts
    assert len(parts) == 12
    assert [list(one.users) for one in wanted] == [*([part] for part in parts), ["STS12"]]
    assert {one.kind for one in wanted} == {"dataset"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mirror=https://hub.example", "set HF_ENDPOINT=https://hub.example"),
        ("mirror=null", "prefetch needs a folder to fill"),
    ],
)
def test_a_mirror_that_cannot_be_filled(override: str, message: str) -> None:
    config = composed("tasks=[STSBenchmark]", override, config="prefetch")
    with pytest.raises(RequestError, match=message):
        command.prefetch(read.read({"minilm": config}), Recorded(), verify=False)


def test_a_mirror_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="is a file, not a folder to fill"):
        fetch(tmp_path / "file", "tasks=[STSBenchmark]")


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "lcbench-manifest.json").write_text("{")
    with pytest.raises(RequestError, match=r"lcbench-manifest.json cannot be read .* Remove it"):
        fetch(tmp_path, "tasks=[STSBenchmark]")


class _Answer:
    def __init__(self, status: int) -> None:
        self.status_code = status


class _Refused(OSError):
    def __init__(self, status: int) -> None:
        super().__init__(f"{status} from the hub")
        self.response = _Answer(status)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ConnectionResetError("reset"), 3),
        (TimeoutError("slow"), 3),
        (_Refused(503), 3),
        (_Refused(404), 1),
        (ValueError("no such column"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_a_networks_fault_is_tried_again_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    monkeypatch.setattr(prefetch.time, "sleep", lambda seconds: waits.append(seconds))
    plan = type("Plan", (), {"wanted": type("Wanted", (), {"name": "some/data"})})
    waits: list[float] = []
    calls = 0

    def fetch(plan: object, folder: Path) -> None:
        nonlocal calls
        calls += 1
        raise error

    observer = Recorded()
    with pytest.raises(type(error)):
        prefetch._fetch_with_retries(fetch, plan, tmp_path, observer)  # type: ignore[arg-type]
    assert calls == tries
    assert waits == [2.0, 8.0][: tries - 1]
    assert observer.text.count("retrying in") == tries - 1


def evil(hub: Hub, kind: str, *, path: str | None = None, **changes: Any) -> None:
    """Let the hub's model or first dataset have another commit, or one more file, or its size."""
    i = 0 if kind == "model" else 1
    was = hub.repositories[i]
    made = Repository(was.kind, was.name, changes.pop("commit", was.commit), dict(was.files))
    if path is not None:
        entry = {"type": "file", "oid": "0" * 40, "size": 1, "path": path, **changes}
        made.__dict__["tree"] = [entry, *was.tree]
    hub.repositories[i] = made


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("how", ["absolute", "relative", "backslash", "nul"])
@pytest.mark.parametrize("into", ["mirror", "cache"])
def test_a_hub_cannot_have_files_removed(
    hub: Hub, tmp_path: Path, kind: str, how: str, into: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One snapshot is there already, so that relative names lead somewhere.
    mirror = tmp_path / "mirror"
    assert fetch(mirror, *KEYS, "tasks=[STSBenchmark]")[0] == {}
    precious = {
        suffix: tmp_path / f"settings.{suffix}" for suffix in ("json", "parquet", "safetensors")
    }
    for file in precious.values():
        file.write_text("precious")
    shutil.rmtree(mirror / "trees", ignore_errors=True)
    name = precious["parquet" if kind == "dataset" else "json"]
    path = {
        "absolute": str(name),
        "relative": f"../../../../{name.name}",
        "backslash": f"..\\{name.name}",
        "nul": f"{name}\0.json",
    }[how]
    wanted = [one for one in command.wanted_of(read_keys(mirror)) if one.kind == kind]
    evil(hub, kind, path=path)
    from huggingface_hub import HfApi

    with pytest.raises(RequestError, match="a file outside the repository's folder"):
        prefetch.plan_with(HfApi(endpoint=hub.address), wanted[0], mirror)
    if into == "cache" and kind == "dataset":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        part = Part("STSBenchmark", ("default",), ("test",), None, "test", MtebSource())
        failed = prefetch.fetch_data([part], Recorded())
        assert "a file outside" in next(iter(failed.values()))
    assert [file.read_text() for file in precious.values()] == ["precious"] * 3


def test_a_tree_without_an_end_is_given_up(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    wanted = next(one for one in command.wanted_of(read_keys(tmp_path)) if one.kind == "dataset")
    whole = len(hub.repositories[1].tree)
    api = HfApi(endpoint=hub.address)
    monkeypatch.setattr(prefetch, "_MOST_ENTRIES", whole)
    assert prefetch.plan_with(api, wanted, tmp_path).sizes
    monkeypatch.setattr(prefetch, "_MOST_ENTRIES", whole - 1)
    with pytest.raises(RequestError, match=f"more than {whole - 1} files and folders"):
        prefetch.plan_with(api, wanted, tmp_path)


def read_keys(folder: Path) -> schema.Settings:
    keys = (*KEYS, "tasks=[STSBenchmark]", f"mirror={folder}")
    return read.read({"custom": composed(*keys, config="prefetch")})


def test_what_lies_out_of_a_snapshot_is_not_removed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / COMMIT
    (snapshot / "in").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    (snapshot / "out").symlink_to(tmp_path / "away")
    precious = tmp_path / "away" / "config.json"
    for path in (precious, snapshot / "in" / "config.json"):
        path.write_text("x")
    for name in (str(precious), "../../../away/config.json", "out/config.json"):
        with pytest.raises(RequestError, match="is not removed"):
            prefetch._remove(snapshot, name)
    prefetch._remove(snapshot, "in/config.json")
    assert precious.exists()
    assert not (snapshot / "in" / "config.json").exists()


@pytest.mark.parametrize("commit", ["../../../home/c2", "main", "A" * 40, "a" * 41])
def test_a_commit_that_is_none_is_refused(hub: Hub, tmp_path: Path, commit: str) -> None:
    evil(hub, "model", commit=commit)
    failed, _ = fetch(tmp_path / "mirror", *KEYS, "tasks=[DocstringRetrieval]")
    (reason,) = failed.values()
    assert "not 40 hexadecimal digits" in reason


@pytest.mark.parametrize("size", [10**18, "12", -1, None])
def test_a_size_that_is_none_stops_its_own_repository_alone(
    hub: Hub, tmp_path: Path, size: object
) -> None:
    evil(hub, "model", path="config_extra.json", size=size)
    failed, _ = fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")
    ((name, reason),) = failed.items()
    assert name == f"model {MODEL}, for custom"
    assert "an invalid size: 'config_extra.json'" in reason
    assert data_of(tmp_path, "STSBenchmark").is_dir()


def test_a_hub_without_https_gets_no_token(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
    # The hub's client sends it to any address.
    assert fetch(tmp_path / "1", *KEYS, "tasks=[STSBenchmark]")[0] == {}
    assert set(hub.authorizations) == {"Bearer hf_secret"}
    hub.authorizations.clear()
    lcbench_hub.guard_token()
    hub.gated.add("mteb/stsbenchmark-sts")
    failed, _ = fetch(tmp_path / "2", *KEYS, "tasks=[STSBenchmark]")
    assert hub.authorizations == []
    (reason,) = failed.values()
    assert "it is gated" in reason
    assert f"no token was sent to {hub.address}: it goes to https://huggingface.co" in reason


def test_the_token_is_in_no_file_and_on_no_screen(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
    hub.gated.add("dwzhu/LongEmbed")
    failed, screen = fetch(tmp_path / "m", *KEYS, "tasks=[STSBenchmark,LEMBQMSumRetrieval]")
    assert set(hub.authorizations) == {"Bearer hf_secret"}
    assert len(failed) == 1
    assert "hf_secret" not in screen + str(failed)
    files = [path for path in (tmp_path / "m").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"hf_secret" in path.read_bytes()]


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_body_longer_than_announced_is_refused_before_it_fills_the_disk(
    hub: Hub, tmp_path: Path, path: str
) -> None:
    hub.longer[path] = 500_000_000
    failed, screen = fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")
    size = len(hub.repositories[0].files[path])
    (reason,) = failed.values()
    assert f"sends more than the {size} bytes that it announced" in reason
    assert hub.sent[path] < 50_000_000
    assert "mteb/stsbenchmark-sts  " in screen
    blobs = [one.stat().st_size for one in tmp_path.glob("*--*/blobs/*")]
    assert max(blobs) < 10_000_000


def test_a_server_that_crawls_is_given_up(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcbench.hub.transfers._WINDOW_SECONDS", 0.5)
    monkeypatch.setattr(prefetch, "_RETRY_DELAYS", (0.0,))
    hub.crawling.add("model.safetensors")
    failed, screen = fetch(tmp_path, *KEYS, "tasks=[STSBenchmark]")
    (reason,) = failed.values()
    assert re.search(r"has sent \d+ bytes in \d+ seconds", reason)
    assert "TimeoutError" in screen
    assert "retrying in 0 s" in screen
    assert files_in(data_of(tmp_path, "STSBenchmark"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_a_server_crawls(
    hub: Hub, tmp_path: Path, number: signal.Signals
) -> None:
    hub.crawling.add("model.safetensors")
    script = (
        "from lcbench.cli.app import main; from lcbench.system import signals\n"
        "signals.END_SECONDS = 1.0; main()"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            script,
            "prefetch",
            *KEYS,
            "tasks=[DocstringRetrieval]",
            f"mirror={tmp_path}",
        ],
        env=os.environ | {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 300
        while hub.sent.get("model.safetensors", 0) < 20:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(number)
        _, words = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in words
    assert "Finished cells are kept" in words
