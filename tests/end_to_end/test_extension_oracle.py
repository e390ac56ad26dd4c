"""MiniLM taken as a model of 256 positions, extended to 512, against its own 512."""

import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from lcbench.hub.windows import set_window
from lcbench.repair.extension import parse
from lcbench.tasks.reference import read_reference, texts_of

PAGE = Path(__file__).parents[2] / "docs" / "extension.md"
EXTENSIONS: dict[str, Any] = {
    "none: cut at 256 tokens": None,
    "{gp: 512, from: 256}": {"gp": 512, "from": 256},
    "{rp: 512, from: 256}": {"rp": 512, "from": 256},
    "{pi: 512, from: 256}": {"pi": 512, "from": 256},
}


def cosines(folder: Path, count: int) -> dict[str, NDArray[Any]]:
    """Return cosines of long docstrings' embeddings to those with the model's own 512 positions."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    set_window(model, 512)
    long = (
        one
        for one in texts_of(read_reference("docstrings"))
        if len(model.tokenizer(one)["input_ids"]) >= 512
    )
    texts = list(islice(long, count))
    assert len(texts) == count
    true = model.encode(texts, normalize_embeddings=True)
    found = {}
    for name, value in EXTENSIONS.items():
        applied = None if value is None else parse(value).apply(model)
        set_window(model, 256 if value is None else 512)
        found[name] = (model.encode(texts, normalize_embeddings=True) * true).sum(axis=1)
        if applied is not None:
            applied.remove()
    return found


def test_extended_embeddings_are_nearer_to_the_true_ones(minilm_folder: Path) -> None:
    """Than those of texts that are cut, in each of two texts and with each method."""
    cut, *extended = cosines(minilm_folder, 2).values()
    assert all((one > cut + 0.04).all() for one in extended)


@pytest.mark.exhaustive
def test_the_table_of_the_documentation(minilm_folder: Path) -> None:
    rows = re.findall(r"^\| (.+?) \| (0\.\d\d) \| (0\.\d\d) \|$", PAGE.read_text("utf-8"), re.M)
    stated = {name.replace("`", ""): (float(mean), float(least)) for name, mean, least in rows}
    assert stated.keys() == EXTENSIONS.keys()
    found = cosines(minilm_folder, 10)
    for name, values in found.items():
        assert stated[name] == pytest.approx((values.mean(), values.min()), abs=0.006), name
    cut, *extended = found.values()
    assert all((one > cut).all() for one in extended)
