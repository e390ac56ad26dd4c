"""Libraries are imported with the garbage collector at rest."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from lcbench.system.imports import import_libraries


def test_the_collector_rests_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = "import gc\nenabled = gc.isenabled()\nkept = [[] for _ in range(1000)]\n"
    (tmp_path / "library_that_looks.py").write_text(seen)
    (tmp_path / "library_that_fails.py").write_text("raise OSError('no such disk')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = gc.get_freeze_count()
    import_libraries("library_that_looks")
    library = sys.modules["library_that_looks"]
    assert not library.enabled
    assert gc.isenabled()
    # Neither is what it has made looked at again.
    assert gc.get_freeze_count() >= before + 1000
    assert not any(one is library.kept for one in gc.get_objects())
    with pytest.raises(OSError, match="no such disk"):
        import_libraries("library_that_fails")
    assert gc.isenabled()
    gc.disable()
    try:
        (tmp_path / "another_library.py").touch()
        import_libraries("another_library")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_where_nothing_is_imported_nothing_is_kept() -> None:
    """Runs of one process ask for the libraries again and again, with models at hand."""
    before = gc.get_freeze_count()
    model: list[list[int]] = [[] for _ in range(1000)]
    import_libraries("json", "gc")
    # What was frozen before may end.
    assert gc.get_freeze_count() <= before
    assert any(one is model for one in gc.get_objects())


def test_at_the_end_nothing_is_looked_through() -> None:
    """Python collects twice more before it ends: of all libraries, for more than a second."""
    code = (
        "import gc\n"
        "from lcbench.system import signals\n"
        "class Loop:\n"
        "    def __init__(self): self.me = self\n"
        "    def __del__(self): print('collected')\n"
        "Loop()\n"
        "signals.leave(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
