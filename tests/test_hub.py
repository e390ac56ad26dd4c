"""What is here of the hub's repositories, and whether the hub can be asked."""

import socket
import time

import pytest
from datasets import config
from huggingface_hub import constants, hf_api, hf_hub_url

from hub_server import serving
from lcbench import hub


def test_a_sites_mirror_takes_the_hubs_place_in_libraries_that_are_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Put back at the end, whatever is set in between.
    monkeypatch.setenv("HF_ENDPOINT", "")
    for owner, name in (
        (constants, "ENDPOINT"),
        (constants, "HUGGINGFACE_CO_URL_TEMPLATE"),
        (hf_api.api, "endpoint"),
        (config, "HF_ENDPOINT"),
        (config, "HUB_DATASETS_URL"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    hub.use("http://hub.example")
    assert hf_api.HfApi().endpoint == hf_api.api.endpoint == "http://hub.example"
    assert hf_hub_url("a/b", "c").startswith("http://hub.example/a/b/resolve/main/")
    assert config.HUB_DATASETS_URL.startswith("http://hub.example/datasets/")


def test_why_nothing_can_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        assert hub.why_not_fetched(offline=False) is None
        assert hub.why_not_fetched(offline=True) == "offline=true forbids fetching it"
        assert served.requests == ["HEAD /"]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert hub.why_not_fetched(offline=False) == "HF_HUB_OFFLINE forbids fetching it"
    assert served.requests == ["HEAD /"]


@pytest.mark.alone
def test_a_probe_counts_from_when_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "_PROBE_SECONDS", 0.5)
        probe = hub.Probe()
        time.sleep(0.5)
        started = time.monotonic()
        assert not probe.answers()
        assert time.monotonic() - started < 0.25


@pytest.mark.parametrize(
    ("lacks", "line"),
    [
        ((), "it"),
        (("a",), "it: a"),
        (("a", "b", "c"), "it: a, b, c"),
        (("a", "b", "c", "d", "e"), "it: a, b, c and 2 more"),
    ],
)
def test_a_line_names_the_first_files(lacks: tuple[str, ...], line: str) -> None:
    assert hub.describe("it", lacks) == line


def test_the_place_that_lacks_least(tmp_path) -> None:
    nowhere, half, some = (
        hub.Place(None),
        hub.Place(tmp_path, ("a", "b")),
        hub.Place(tmp_path, ("a",)),
    )
    assert hub.best([nowhere, half, some]) == some
    assert hub.best([nowhere]) == nowhere
    assert not some.is_whole
    assert hub.Place(tmp_path).is_whole
