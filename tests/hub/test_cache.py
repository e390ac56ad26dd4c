"""What is here of the hub's repositories, whether the hub can be asked, and who gets the token."""

import os
import socket
import time
from collections.abc import Callable

import pytest
from datasets import config
from hub_server import serving
from huggingface_hub import constants, hf_api, hf_hub_url
from huggingface_hub.utils import build_hf_headers

from lcbench.errors import RequestError
from lcbench.hub import cache


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back at the end which hub libraries ask, and whether it gets a token."""
    monkeypatch.setenv("HF_ENDPOINT", "")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
    for owner, name in (
        (constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN"),
        (constants, "ENDPOINT"),
        (constants, "HUGGINGFACE_CO_URL_TEMPLATE"),
        (hf_api.api, "endpoint"),
        (config, "HF_ENDPOINT"),
        (config, "HUB_DATASETS_URL"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))


@pytest.mark.usefixtures("restored")
def test_a_sites_mirror_takes_the_hubs_place_in_libraries_that_are_imported() -> None:
    cache.use("http://hub.example")
    assert hf_api.HfApi().endpoint == hf_api.api.endpoint == "http://hub.example"
    assert hf_hub_url("a/b", "c").startswith("http://hub.example/a/b/resolve/main/")
    assert config.HUB_DATASETS_URL.startswith("http://hub.example/datasets/")


def test_why_nothing_can_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        assert cache.why_not_fetched(offline=False) is None
        assert cache.why_not_fetched(offline=True) == "offline=true forbids fetching it"
        assert served.requests == ["HEAD /"]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert cache.why_not_fetched(offline=False) == "HF_HUB_OFFLINE forbids fetching it"
    assert served.requests == ["HEAD /"]


def test_a_probe_counts_from_when_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(cache, "_PROBE_SECONDS", 2.0)
        probe = cache.Probe()
        time.sleep(2.0)
        started = time.monotonic()
        assert not probe.answers()
        # From then on it would be two seconds.
        assert time.monotonic() - started < 1.0


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
    assert cache.describe("it", lacks) == line


def test_the_place_that_lacks_least(tmp_path) -> None:
    nowhere, half, some = (
        cache.Place(None),
        cache.Place(tmp_path, ("a", "b")),
        cache.Place(tmp_path, ("a",)),
    )
    assert cache.best([nowhere, half, some]) == some
    assert cache.best([nowhere]) == nowhere
    assert not some.is_whole
    assert cache.Place(tmp_path).is_whole


OFFICIAL = "https://huggingface.co"
OWN = "https://hub.example"


@pytest.fixture
def token(restored: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str | None]:
    """A user's token, and what of it is sent by the hub's client."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    return lambda: build_hf_headers().get("authorization")


@pytest.mark.parametrize(
    ("endpoint", "mirror", "is_sent"),
    [
        (None, None, True),
        (OWN, None, True),
        (f"{OWN}/", None, True),
        ("http://hub.example", None, False),
        ("HTTP://hub.example", None, False),
        # Named on the command line, or by a manifest that others can change.
        (None, OFFICIAL, True),
        (None, "https://another.example", False),
        (None, "http://hub.example", False),
        (OWN, OWN, True),
        (OWN, "https://another.example", False),
        ("http://hub.example", "http://hub.example", False),
    ],
)
def test_the_token_goes_to_the_hub_and_to_an_https_address_of_the_environment(
    token: Callable[[], str | None],
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str | None,
    mirror: str | None,
    is_sent: bool,
) -> None:
    if endpoint is None:
        monkeypatch.delenv("HF_ENDPOINT")
    else:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    cache.guard_token()
    if mirror is not None:
        cache.use(mirror)
    assert token() == ("Bearer hf_secret" if is_sent else None)
    # Processes that are started from here on read it there.
    assert os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] == ("0" if is_sent else "1")
    assert bool(cache.withheld_token()) is not is_sent


def test_an_address_with_a_password_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for address in ("http://me:geheim@hub.example", "https://geheim@hub.example/path"):
        with pytest.raises(RequestError, match="mirror contains a user or a password") as error:
            cache.refuse_credentials("mirror", address)
        assert "geheim" not in str(error.value)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        why = cache.why_not_fetched(offline=False)
        assert why is not None
        assert "HF_ENDPOINT contains a user or a password" in why
        assert "geheim" not in why
    cache.refuse_credentials("mirror", "https://hub.example/a@b")
