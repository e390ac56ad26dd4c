"""Files that are written whole: their modes, what is in the way, and what killed writers leave."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lcbench.errors import StorageError
from lcbench.system.files import link_atomically, remove_leftovers, write_atomically
from lcbench.system.process import short_name


def write(path: Path) -> None:
    write_atomically(path, lambda file: file.write_text("new"))


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_that_the_umask_leaves_and_the_umask_is_never_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patched:
            patched.delattr(os, "umask")
            write(tmp_path / "a.json")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    keys, shared = tmp_path / "authorized_keys", tmp_path / "shared"
    keys.write_text("precious")
    keys.chmod(0o600)
    shared.mkdir()

    def attacked(file: Path) -> None:
        (temporary,) = shared.iterdir()
        temporary.unlink()
        temporary.symlink_to(keys)
        file.write_text("new")

    write_atomically(shared / "a.json", attacked)
    assert keys.read_text() == "precious"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES])
def test_a_folder_that_cannot_be_fsynced_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    def no_chmod(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "vfat")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "chmod", no_chmod)
    write(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "new"


def test_a_disk_that_fails_at_a_folder_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        write(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    file = tmp_path / f".a.json@{short_name()}~{dead.pid}~1.x.tmp"
    file.touch()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "sticky")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        write(tmp_path / "c.json")
        remove_leftovers(tmp_path)
    assert (tmp_path / "c.json").read_text() == "new"
    assert file.exists()
    remove_leftovers(tmp_path)
    assert not file.exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_has_no_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    remove_leftovers(tmp_path)


def test_a_link_is_replaced_whole_and_what_killed_writers_left_next_to_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder, link = tmp_path / "links", tmp_path / "links" / "link"
    link_atomically(link, tmp_path / "old")
    (folder / f".link@{short_name()}~{dead.pid}~1.x.tmp").symlink_to("nowhere")
    link_atomically(link, tmp_path / "new")
    assert link.readlink() == tmp_path / "new"
    assert list(folder.iterdir()) == [link]

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        link_atomically(link, tmp_path / "newer")
    assert link.readlink() == tmp_path / "new"
    assert list(folder.iterdir()) == [link]
