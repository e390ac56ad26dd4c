"""`system.json_cache`: what is missing or damaged is None, and nothing raises."""

from pathlib import Path

import pytest

from lcbench.system.json_cache import JsonCache


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache = JsonCache("a.json", tmp_path / "cache")
    assert cache.read(dict) is None
    cache.write({"τ": [0.8]})
    assert cache.read(dict) == {"τ": [0.8]}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"{}", b"3", b'{"tau": "x"}']
)
def test_a_damaged_file_or_another_layout_is_none(tmp_path: Path, content: bytes) -> None:
    cache = JsonCache("a.json", tmp_path)
    (tmp_path / "a.json").write_bytes(content)
    assert cache.read(lambda read: float(read["tau"])) is None


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LCBENCH_CACHE", str(tmp_path / "file"))
    cache = JsonCache("a.json")
    cache.write({})
    assert cache.read(dict) is None


def test_no_home_folder_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("LCBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(home))
    cache = JsonCache("a.json")
    cache.write({})
    assert cache.read(dict) is None
