"""A model whose weights are not all its checkpoint's is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import settings
from safetensors.torch import load_file, save_file

from lcbench.encode.checkpoint import load_reports
from lcbench.encode.load import load
from lcbench.errors import RequestError
from lcbench.hub.models import locate

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


@pytest.mark.parametrize("where", ["declared", "code of its own"])
def test_a_pooler_that_the_model_reads_may_not_be_missing(
    tmp_path: Path, make_model: Callable[[str], Path], where: str
) -> None:
    """As `method_output_name` says it, or as a module does it that no file describes."""
    from sentence_transformers.base.modules import Transformer

    def without(weights: dict[str, Any]) -> dict[str, Any]:
        return {name: tensor for name, tensor in weights.items() if "pooler" not in name}

    reads = {
        "modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}
    }
    whole = reading_the_pooler(tmp_path / "whole", make_model("bert"), reads)
    expected = load_folder(whole).encode(["a text"])
    assert expected.shape == (1, 32)
    message = (
        r"checkpoint lacks 2 of BertModel's 39 weights, which would be random: "
        r"pooler\.dense\.bias, pooler\.dense\.weight\."
    )
    if where == "declared":
        with pytest.raises(RequestError, match=message):
            load_folder(changed(tmp_path, whole, without))
        return
    folder = changed(tmp_path, make_model("bert"), without)
    load_folder(folder)
    forward = Transformer.forward

    def pooled(self: Any, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        pooler = self.model.pooler(forward(self, features, **kwargs)["token_embeddings"])
        features["token_embeddings"] = features["token_embeddings"] + pooler[:, None]
        return features

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transformer, "forward", pooled)
        with pytest.raises(RequestError, match=message):
            load_folder(folder)


def reading_the_pooler(folder: Path, model: Path, reads: dict[str, Any]) -> Path:
    """A copy of a model whose embeddings are the pooler's output."""
    shutil.copytree(model, folder)
    path = folder / "sentence_bert_config.json"
    stated = {**json.loads(path.read_text()), **reads, "module_output_name": "sentence_embedding"}
    path.write_text(json.dumps(stated))
    (folder / "modules.json").write_text(
        json.dumps(json.loads((folder / "modules.json").read_text())[:1])
    )
    return folder


def test_a_missing_pooler_that_nothing_reads_is_as_it_was(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    """It is NaN while it is tried, and no longer."""
    folder = changed(
        tmp_path,
        make_model("bert"),
        lambda w: {name: tensor for name, tensor in w.items() if "pooler" not in name},
    )
    assert load_folder(folder)[0].auto_model.pooler.dense.weight.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"activation_function": "my_package.layers.Swish"},
            r"'my_package\.layers\.Swish' is not trusted.*\(Tanh\).*model\.trust_remote_code=true",
        ),
        ({"gate": "sigmoid"}, r"unrecognized Dense config key\(s\) \['gate'\]"),
    ],
)
@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_a_dense_layer_that_would_be_another_is_refused(
    changes: dict[str, str],
    words: str,
    level: str,
    tmp_path: Path,
    make_model: Callable[[str], Path],
) -> None:
    import logging

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    model = SentenceTransformer(str(make_model("bert")), device="cpu")
    model.append(Dense(32, 8, activation_function=None))
    model.save_pretrained(str(tmp_path / "model"))
    path = tmp_path / "model" / "2_Dense" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    logger = logging.getLogger("sentence_transformers")
    logger.setLevel(level)
    try:
        with pytest.raises(RequestError, match=words):
            load_folder(tmp_path / "model")
        assert logging.getLevelName(logger.level) == level
    finally:
        logger.setLevel(logging.NOTSET)


def test_settings_of_the_tokenizer_that_would_be_left_out_are_refused(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    folder = changed(tmp_path, make_model("bert"), dict)
    path = folder / "sentence_bert_config.json"
    stated = {**json.loads(path.read_text()), "processing_kwargs": {"truncation": False}}
    path.write_text(json.dumps(stated))
    with pytest.raises(
        RequestError, match=r"Unknown keys in `processing_kwargs`: \{'truncation'\}"
    ):
        load_folder(folder)


def test_a_route_that_cannot_be_read_is_refused(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    inner = SentenceTransformer(str(make_model("bert")), device="cpu")
    router = Router({"query": list(inner.children())}, default_route="query")
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(tmp_path / "model"))
    load_folder(tmp_path / "model")
    path = tmp_path / "model" / "router_config.json"
    config = json.loads(path.read_text())
    config["parameters"]["route_mappings"] = {"query → text": "query"}
    path.write_text(json.dumps(config))
    with pytest.raises(RequestError, match="Could not parse route_mapping key: query → text"):
        load_folder(tmp_path / "model")
