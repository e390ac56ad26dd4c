"""Memory does not grow with the number of texts."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RssAnon is Linux's")
@pytest.mark.parametrize(
    ("texts", "most"),
    [
        # All embeddings would be 439 MiB, twice over.
        (150_000, 439),
        # All embeddings would be 2,930 MiB, twice over.
        pytest.param(1_000_000, 1024, marks=pytest.mark.exhaustive),
    ],
)
def test_many_short_texts_need_less_memory_than_their_embeddings(
    tmp_path: Path, texts: int, most: int
) -> None:
    program = Path(__file__).parents[1] / "support" / "memory_program.py"
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(texts)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    mebibytes, encoded, again, same = done.stdout.split()
    assert int(mebibytes) < most
    assert int(encoded) == texts
    # The second time all of them come from the store, bit for bit.
    assert int(again) == 0
    assert same == "True"
