"""The recorded reports are those of their recorded cells."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from verify_results import _note, compare, verify  # noqa: E402


def test_the_recorded_numbers_follow_from_the_recorded_cells(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify(ROOT / "results") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(":")[0] for line in lines] == [
        str(ROOT / "results" / name)
        for name in (
            "demo",
            *(
                f"minilm/{one}"
                for one in (
                    "docs",
                    "extension",
                    "mirror",
                    "mirror_repairs",
                    "repairs",
                    "tuned",
                    "windows",
                )
            ),
        )
    ]
    assert all(int(line.rpartition(":")[2].split()[0]) > 200 for line in lines)


def test_another_number_is_found(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "table1.csv").write_text("model,score\na,0.5\n", encoding="utf-8")
    shutil.copytree(old, new)
    assert compare(old, new) == (4, [])
    (new / "table1.csv").write_text("model,score\na,0.5000000000001\n", encoding="utf-8")
    assert compare(old, new) == (4, [])
    (new / "table1.csv").write_text("model,score\na,0.5001\n", encoding="utf-8")
    assert compare(old, new) == (4, ["table1.csv, line 2: 0.5 is now 0.5001"])
    (new / "table1.csv").write_text("model,score\n", encoding="utf-8")
    assert compare(old, new) == (0, ["table1.csv has other rows or columns"])
    (new / "table1.csv").unlink()
    assert compare(old, new) == (0, ["table1.csv is not written any more"])
    assert verify(tmp_path / "nothing") == 1


def test_the_note_on_top_stays() -> None:
    assert "".join(_note("> a\n> b\n\ntext\n> c\n")) == "> a\n> b\n\n"
    assert "".join(_note("text\n")) == ""
