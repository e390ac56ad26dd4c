"""A model whose weights are not all its checkpoint's is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from engines import settings
from lcbench.encode.checkpoint import load_reports
from lcbench.errors import RequestError
from lcbench.models import load, locate

Change = Callable[[dict[str, Any]], dict[str, Any]]


def changed(tmp_path: Path, folder: Path, change: Change) -> Path:
    """A copy of a model, the tensors of its transformer's checkpoint changed."""
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    path = next(path for path in copy.rglob("model.safetensors") if path.parent.name != "2_Dense")
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return copy


def load_folder(folder: Path) -> Any:
    return load(locate(settings(folder), offline=True), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: {f"_orig_mod.{name}": tensor for name, tensor in w.items()},
            r"lacks 3\d of BertModel's 39 weights.*embeddings\.LayerNorm\.bias.*It has _orig_mod\.",
        ),
        (
            lambda w: {name: tensor for name, tensor in w.items() if "layer.1." not in name},
            r"lacks 16 of BertModel's 39 weights.*encoder\.layer\.1\..* and 13 more",
        ),
        (
            lambda w: {"unrelated": next(iter(w.values()))},
            r"lacks 37 of BertModel's 39 weights.*It has unrelated instead",
        ),
        (
            lambda w: {
                **w,
                "encoder.layer.0.output.dense.bias": w["pooler.dense.bias"][:7].clone(),
            },
            r"lacks 1 of BertModel's 39 weights.*: encoder\.layer\.0\.output\.dense\.bias",
        ),
        (
            lambda w: {
                **w,
                "encoder.layer.0.attention.self.distance_embedding.weight": w[
                    "pooler.dense.weight"
                ].clone(),
            },
            r"has 1 weights that BertModel.* does not use: encoder\..*distance_embedding\.weight",
        ),
    ],
    ids=["prefixed", "a layer missing", "unrelated", "another shape", "relative positions"],
)
def test_weights_that_would_be_random_are_refused(
    tmp_path: Path, make_model: Callable[[str], Path], change: Change, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        load_folder(changed(tmp_path, make_model("bert"), change))


@pytest.mark.parametrize("layers", [-5, 1, 3])
def test_another_number_of_layers_than_the_checkpoint_has_is_refused(
    tmp_path: Path, make_model: Callable[[str], Path], layers: int
) -> None:
    folder = changed(tmp_path, make_model("bert"), dict)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": layers}))
    with pytest.raises(RequestError, match=r"encoder\.layer\."):
        load_folder(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {name: tensor for name, tensor in w.items() if "pooler" not in name},
        lambda w: {**w, "cls.predictions.bias": w["pooler.dense.bias"].clone()},
        lambda w: {**w, "classifier.weight": w["pooler.dense.weight"].clone()},
        lambda w: {**w, "embeddings.position_ids": w["pooler.dense.bias"].long()},
        lambda w: {f"bert.{name}": tensor for name, tensor in w.items()},
    ],
    ids=["no pooler", "language head", "classifier", "position ids", "of a larger model"],
)
def test_what_embeddings_do_not_depend_on_may_be_missing_or_more(
    tmp_path: Path, make_model: Callable[[str], Path], change: Change
) -> None:
    expected = load_folder(make_model("bert")).encode(["a text"])
    got = load_folder(changed(tmp_path, make_model("bert"), change)).encode(["a text"])
    assert (got == expected).all()


def test_weights_of_every_module_are_looked_at(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    model = SentenceTransformer(str(make_model("bert")), device="cpu")
    model.append(Dense(32, 8))
    model.save_pretrained(str(tmp_path / "model"))
    load_folder(tmp_path / "model")
    path = tmp_path / "model" / "2_Dense" / "model.safetensors"
    save_file({"linear.weight": load_file(path)["linear.weight"]}, path)
    with pytest.raises(RequestError, match=r"linear\.bias"):
        load_folder(tmp_path / "model")


def test_transformers_reports_what_it_loads(make_model: Callable[[str], Path]) -> None:
    """Through functions that are its own affair: where they are is looked at in one place."""
    from transformers import AutoModel

    with load_reports() as reports:
        AutoModel.from_pretrained(make_model("bert"))
    (report,) = reports
    assert (report.missing, report.unexpected) == ((), ())
    assert type(report.model).__name__ == "BertModel"
