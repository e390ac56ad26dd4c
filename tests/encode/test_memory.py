"""Memory does not grow with the number of texts."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RssAnon is Linux's")
def test_a_million_short_texts_need_less_than_a_gibibyte(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "support" / "memory_program.py"
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "1000000"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    mebibytes, encoded, again, same = done.stdout.split()
    # All embeddings would be 2,930 MiB, twice over.
    assert int(mebibytes) < 1024
    assert int(encoded) == 1_000_000
    # The second time all of them come from the store, bit for bit.
    assert int(again) == 0
    assert same == "True"
