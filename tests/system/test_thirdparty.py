"""Each private name of another library is there, and does what lcbench relies on."""

import ast
import re
import subprocess
import sys
from multiprocessing import spawn
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lcbench.settings.configs import config_folder
from lcbench.system import thirdparty

SOURCE = Path(thirdparty.__file__).parents[1]
# Underscored, and public all the same.
PUBLIC = {"_exit", "_replace"}


def test_no_other_module_uses_a_private_name_of_a_library() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")}
    own = {name for tree in trees.values() for node in ast.walk(tree) for name in _defined(node)}
    found = [
        f"{path.relative_to(SOURCE)}: {name}"
        for path, tree in trees.items()
        if path != Path(thirdparty.__file__)
        for node in ast.walk(tree)
        for name in _used(node)
        if _is_private(name) and name.rpartition(".")[2] not in own | PUBLIC
    ]
    assert found == []


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr] if isinstance(node.value, ast.Name) and node.value.id == "self" else []
    # What an attribute of our own is called when it is set on an object of another library.
    return [node.value] if isinstance(node, ast.Constant) and _is_ours(node.value) else []


def _is_ours(value: object) -> bool:
    return isinstance(value, str) and value.startswith("_lcbench_")


def _used(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("lcbench"):
        return [f"{node.module}.{one.name}" for one in node.names]
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return []
    if node.func.id not in ("getattr", "hasattr", "setattr", "delattr"):
        return []
    name = node.args[1]
    return [name.value] if isinstance(name, ast.Constant) else []


def _is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def test_importing_the_names_imports_no_library() -> None:
    program = (
        "import sys, lcbench.system.thirdparty\n"
        "print({'torch', 'mteb', 'transformers', 'sentence_transformers', 'datasets', 'hydra',"
        " 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"no attribute TorchDispatch$"):
        thirdparty.TorchDispatch  # noqa: B018


def test_a_dispatch_mode_sees_every_operation() -> None:
    import torch

    seen = []

    class Seen(thirdparty.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.overloadpacket)
            return func(*args, **(kwargs or {}))

    with Seen():
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert torch.ops.aten.mm in seen


def test_a_process_is_not_told_of_the_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, dict[str, Any]] = {}

    class Told:
        name = "ours"

        def start(self) -> None:
            told["ours"] = spawn.get_preparation_data("ours")
            told["another"] = spawn.get_preparation_data("another")

    main = SimpleNamespace(__spec__=None, __file__="/a/script.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    before = spawn.get_preparation_data
    thirdparty.start_without_main(Told())
    assert spawn.get_preparation_data is before
    assert told["another"]["init_main_from_path"] == "/a/script.py"
    assert told["ours"].keys() == told["another"].keys() - {"init_main_from_path"}


def test_options_of_hydra() -> None:
    assert {"--help", "--cfg", "-m", "--multirun", "--config-dir"} <= set(
        thirdparty.hydra_options()
    )


@pytest.mark.parametrize(
    ("words", "jobs", "composed"),
    [
        (["tau=0"], 1, ["RUN"]),
        # Its sweeper composes the config of each job to see that it can be.
        (["-m", "tau=0,0"], 2, ["MULTIRUN", *4 * ["RUN"]]),
        # First of all to look for the mode.
        (["hydra.mode=RUN", "tau=0"], 1, ["MULTIRUN", "RUN"]),
        (["hydra.mode=MULTIRUN", "tau=0"], 1, ["MULTIRUN", "MULTIRUN", "RUN", "RUN"]),
        (["--config-dir=.", "tau=0"], 1, ["MULTIRUN", "RUN"]),
    ],
    ids=lambda given: " ".join(map(str, given)) if isinstance(given, list) else str(given),
)
def test_hydra_composes_no_more_often_than_it_has_to(
    words: list[str],
    jobs: int,
    composed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    from lcbench.cli import app

    load, found = ConfigLoaderImpl.load_configuration, []

    def noted(self: Any, config_name: str, overrides: list[str], run_mode: Any, **more: Any) -> Any:
        found.append(run_mode.name)
        return load(self, config_name, overrides, run_mode, **more)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", noted)
    monkeypatch.setattr(sys, "argv", ["lcbench"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)
    assert app.run(words) == 2
    assert found == composed
    assert capsys.readouterr().err.count("tau=0 is not a temperature") == jobs


def test_no_config_of_ours_sets_hydras_mode() -> None:
    folder = Path(config_folder())
    texts = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.yaml")}
    assert len(texts) > 20
    assert [path for path, text in texts.items() if re.search(r"^\s*mode:", text, re.M)] == []


def test_the_client_of_the_hub_follows_redirects_and_signs_its_requests() -> None:
    client = thirdparty.hub_client()
    assert client.follow_redirects
    assert len(client.event_hooks["request"]) == 1
    # Limits are set as hooks of their own, of responses.
    assert client.event_hooks["response"] == []


def test_a_lock_of_the_hub_keeps_a_second_out(tmp_path: Path) -> None:
    from filelock import Timeout

    path = tmp_path / "lock"
    with thirdparty.hub_lock(path, timeout=1.0):
        assert path.stat().st_mode & 0o777 == 0o664
        with pytest.raises(Timeout), thirdparty.hub_lock(path, timeout=0.1):
            pass
    with thirdparty.hub_lock(path, timeout=0.1):
        pass


def test_endings_of_data_files() -> None:
    suffixes = set(thirdparty.data_suffixes())
    assert {".json", ".jsonl", ".csv", ".parquet", ".arrow", ".zip"} <= suffixes
    assert not {".py", ".yaml", ""} & suffixes


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_the_attention_that_a_model_was_set_to(name: str) -> None:
    from tiny_models import tiny_transformer

    model = tiny_transformer("bert")
    model.set_attn_implementation(name)
    layer = model.encoder.layer[0].attention.self
    assert thirdparty.attention_implementation(model.config) == name
    assert thirdparty.attention_implementation(layer.config) == name


def test_the_kernels_for_texts_without_padding_take_what_they_are_given() -> None:
    """By position, and by name; what they compute only a GPU shows (scripts/gpu_check.py)."""
    import torch

    names = {
        operation: [one.name for one in operation.default._schema.arguments]
        for operation in (
            torch.ops.aten._flash_attention_forward,
            torch.ops.aten._efficient_attention_forward,
        )
    }
    flash, efficient = names.values()
    assert flash[:7] == ["query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k"]
    assert flash[7:10] == ["dropout_p", "is_causal", "return_debug_mask"]
    assert {"scale", "window_size_left", "window_size_right"} <= set(flash[10:])
    assert efficient[:6] == ["query", "key", "value", "bias", "cu_seqlens_q", "cu_seqlens_k"]
    assert efficient[6:9] == ["max_seqlen_q", "max_seqlen_k", "dropout_p"]
    assert efficient[9] == "custom_mask_type"
    assert "scale" in efficient[10:]
    with pytest.raises((NotImplementedError, RuntimeError)):
        thirdparty.unpadded_attention("flash", *[torch.zeros(1, 1, 8)] * 3, None, None, 1, 1, 0.0)


def test_products_by_onednn_take_weights_laid_out_or_not() -> None:
    import torch

    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN for this processor")
    states, weight, bias = torch.randn(5, 8), torch.randn(6, 8), torch.randn(6)
    expected = torch.nn.functional.linear(states, weight, bias)
    for one in (weight, thirdparty.onednn_layout(weight)):
        found = thirdparty.onednn_linear(states, one, bias, gelu=False)
        assert torch.allclose(found, expected, atol=1e-5)
        found = thirdparty.onednn_linear(states, one, bias, gelu=True)
        # The exact form: the other, by tanh, differs by up to 5e-4.
        assert torch.allclose(found, torch.nn.functional.gelu(expected), atol=1e-5)


def test_which_models_use_the_interface() -> None:
    from tiny_models import tiny_transformer

    assert thirdparty.uses_attention_interface(tiny_transformer("bert"))
    assert not thirdparty.uses_attention_interface(tiny_transformer("deberta"))


def test_tokenizers_whose_code_is_the_library_s() -> None:
    from transformers import BertTokenizerFast, NllbTokenizerFast, PreTrainedTokenizerFast

    class Other(PreTrainedTokenizerFast):
        def _encode_plus(self, *args, **kwargs):
            return super()._encode_plus(*args, **kwargs)

    assert thirdparty.is_fast_tokenizer_unchanged(PreTrainedTokenizerFast)
    assert thirdparty.is_fast_tokenizer_unchanged(BertTokenizerFast)
    assert not thirdparty.is_fast_tokenizer_unchanged(NllbTokenizerFast)
    assert not thirdparty.is_fast_tokenizer_unchanged(Other)
    assert not thirdparty.is_fast_tokenizer_unchanged(object)


@pytest.mark.parametrize(("architecture", "offset"), [("bert", 0), ("mpnet", 2)])
def test_positions_of_texts_without_padding(make_model, architecture: str, offset: int) -> None:
    module = _first_module(make_model(architecture))
    module._flatten_position_offset = module._infer_flatten_position_offset()
    assert thirdparty.flattened_position_offset(module) == offset
    # It is what `preprocess` adds: without it the two would differ.
    assert "_flatten_position_offset" in type(module).preprocess.__code__.co_names


def _first_module(folder: Path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)[0]


def test_whether_a_model_takes_the_task(make_model) -> None:
    module = _first_module(make_model("bert"))
    assert not thirdparty.forward_takes_task(module)
    assert "input_ids" in module._declared_forward_params
    assert not thirdparty.chat_template_takes_task(module)
    module.tokenizer.chat_template = "{% for m in messages %}{{ task }}{{ m.content }}{% endfor %}"
    assert thirdparty.chat_template_takes_task(module)


def test_texts_without_padding_are_pooled_by_the_method_that_is_replaced() -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling = Pooling(2, "mean")
    seen = []
    pool = getattr(Pooling, thirdparty.POOL_FLATTENED)

    def pooled(token_embeddings, *args, **kwargs):
        seen.append(tuple(token_embeddings.shape))
        return pool(pooling, token_embeddings, *args, **kwargs)

    setattr(pooling, thirdparty.POOL_FLATTENED, pooled)
    features = {
        "token_embeddings": torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]),
        "cu_seq_lens_q": torch.tensor([0, 2, 3], dtype=torch.int32),
        "seq_idx": torch.tensor([[0, 0, 1]], dtype=torch.int32),
    }
    embeddings = pooling(features)["sentence_embedding"]
    assert len(seen) == 1
    assert embeddings.tolist() == [[2.0, 3.0], [5.0, 6.0]]


def test_the_route_of_a_role() -> None:
    import torch
    from sentence_transformers.base.modules import Router

    modules = {"query": [torch.nn.Identity()], "document": [torch.nn.Identity()]}
    router = Router(modules, allow_empty_key=False)
    assert thirdparty.route_of(router, "query") == "query"
    assert thirdparty.route_of(router, "document") == "document"
    with pytest.raises(ValueError, match="route"):
        thirdparty.route_of(router, None)
    router.default_route = "document"
    assert thirdparty.route_of(router, None) == "document"


def test_texts_of_retrieval_as_a_model_reads_them() -> None:
    from datasets import Dataset
    from mteb.types import PromptType

    corpus = Dataset.from_dict({"id": ["1", "2"], "title": ["T", ""], "text": ["a", "b"]})
    queries = Dataset.from_dict({"id": ["1"], "text": ["q"], "instruction": ["do"]})
    assert thirdparty.retrieval_texts(corpus, PromptType.document) == ["T a", "b"]
    assert thirdparty.retrieval_texts(queries, PromptType.query) == ["q do"]


def test_scores_of_retrieval_by_query() -> None:
    scores = thirdparty.retrieval_scores(
        {"q": {"a": 0.9, "b": 0.8}, "r": {"a": 0.1, "b": 0.2}},
        {"q": {"b": 1}, "r": {"b": 1}},
        (1, 10),
    )
    assert scores["q"]["ndcg_cut_10"] == pytest.approx(0.6309, abs=1e-4)
    assert scores["q"]["success_1"] == 0
    assert scores["r"]["ndcg_cut_1"] == 1


def test_the_metrics_of_summaries() -> None:
    from mteb._evaluators import SummarizationEvaluator

    metrics = thirdparty.summary_metrics(SimpleNamespace(evaluator=SummarizationEvaluator))
    distances = [[0.1, 0.2, 0.3]]
    scores = metrics(
        None,
        {
            "human_scores": [[1.0, 3.0, 2.0]],
            "cosine_scores": distances,
            "dot_scores": distances,
            "similarity_scores": distances,
        },
    )
    assert scores["cosine_spearman"] == pytest.approx(0.5)


@pytest.mark.parametrize("labels", [[0, 3], ["ham", "spam"]])
def test_two_labels_of_any_name_have_the_scores_of_no_and_yes(labels: list[Any]) -> None:
    from odd_tasks import RareLabels

    tested, predicted = [0, 1, 1, 0, 1, 0], [0, 1, 2, 1, 1, 0]
    plain = RareLabels()._calculate_scores(tested, predicted)
    third = 7 if labels[0] == 0 else "toast"
    named = [[[*labels, third][one] for one in numbers] for numbers in (tested, predicted)]
    task: Any = RareLabels()
    with pytest.raises(ValueError, match="pos_label=1 is not a valid label"):
        task._calculate_scores(*named)
    thirdparty.score_any_two_labels(task)
    assert task._calculate_scores(*named) == plain
    assert task._calculate_scores(tested, predicted) == plain
    # Not of three labels, nor of other types of tasks.
    assert task._calculate_scores(named[1], named[1])["ap"] is None


def test_several_labels_of_a_text_stay_as_they_are() -> None:
    from odd_tasks import SeveralLabels

    task: Any = SeveralLabels()
    thirdparty.score_any_two_labels(task)
    assert "_calculate_scores" not in vars(task)
