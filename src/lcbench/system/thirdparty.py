"""The private names of other libraries that lcbench relies on, each with the reason.

A release may change these without notice; tests/system/test_thirdparty.py checks that each exists
and behaves as expected. A library is imported when its name is accessed or its function called, so
that importing this module imports none of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from multiprocessing import spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2
    import torch
    from mteb.abstasks import AbsTaskClassification
    from torch import Tensor, nn
    from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# Names that are used unchanged, and the modules they are imported from when first accessed.
_MODULES = {
    # The proof sees every operation of a forward pass with it; torch has no public counterpart, and
    # its own tutorials subclass this one.
    "TorchDispatchMode": "torch.utils._python_dispatch",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_MODULES[name]), name)


# multiprocessing

_STARTING = threading.Lock()


def start_without_main(process: BaseProcess) -> None:
    """Start a process that does not run the program's main module.

    A process that is not a fork runs that module again, under another name: a script without
    `if __name__ == "__main__"` would begin once more in each, and fail there. No argument keeps
    multiprocessing from it; what the process is told comes from this one function.
    """
    with _STARTING:
        original = spawn.get_preparation_data

        def without_main(name: str) -> dict[str, Any]:
            data = original(name)
            # Another thread may start a process of its own meanwhile.
            if name != process.name:
                return data
            return {key: value for key, value in data.items() if not key.startswith("init_main_")}

        spawn.get_preparation_data = without_main
        try:
            process.start()
        finally:
            spawn.get_preparation_data = original


# hydra


def hydra_options() -> Collection[str]:
    """Return the options of Hydra's command line, with their hyphens.

    Hydra's parser, like argparse itself, has no public list of its options.
    """
    from hydra._internal.utils import get_args_parser

    return get_args_parser()._option_string_actions.keys()


def initialize_hydra(folders: Sequence[Path]) -> None:
    """Let Hydra find configs in a folder, and in folders that its command line would name.

    Publicly, only the command line takes a second folder. Call this within
    `hydra.initialize_config_dir`, which restores the former state.

    Args:
        folders: the main folder, then those of `--config-dir`.
    """
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    search_path = create_config_search_path(str(folders[0]))
    for folder in folders[1:]:
        # As Hydra's own command line does; the schemas stay last.
        search_path.prepend("command-line", f"file://{folder.resolve()}", anchor="schema")
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2(task_name="app", config_search_path=search_path)


@contextmanager
def mode_from_command_line() -> Iterator[None]:
    """Let Hydra compose a command's config once, where the command line alone says what is run.

    Hydra composes all of it a second time, only to look for `hydra.mode`: a third of what it takes
    before a command begins. Without that key `-m` decides, as here.
    """
    from hydra._internal.hydra import Hydra

    patched: Any = Hydra
    original = patched.get_mode

    def mode(hydra: Any, config_name: str | None, overrides: list[str]) -> Any:
        if any(word.lstrip("+~").startswith("hydra") for word in overrides):
            return original(hydra, config_name, overrides)
        return None

    patched.get_mode = mode
    try:
        yield
    finally:
        patched.get_mode = original


# huggingface_hub


def hub_client() -> httpx2.Client:
    """Return an HTTP client as huggingface_hub makes it.

    The library takes another factory publicly, but does not offer the one it replaces.
    """
    from huggingface_hub.utils._http import default_client_factory

    return default_client_factory()


def hub_lock(path: Path, timeout: float) -> AbstractContextManager[Any]:
    """Return a file lock as huggingface_hub takes it on its cache.

    It can be shared by a group, and works on file systems without locks; `filelock` alone does
    neither in the oldest versions allowed.

    Args:
        path: path of the lock file.
        timeout: seconds after which `filelock.Timeout` is raised.
    """
    from huggingface_hub.utils._fixes import WeakFileLock

    return WeakFileLock(path, timeout=timeout)


# datasets


def data_suffixes() -> Collection[str]:
    """Return the suffixes of the files that `datasets` reads as data, each with its dot.

    There is no public list, and the files fetched of a repository have to follow it.
    """
    from datasets.packaged_modules import _ALL_ALLOWED_EXTENSIONS

    suffixes: Collection[str] = _ALL_ALLOWED_EXTENSIONS
    return suffixes


# transformers


def attention_implementation(config: Any) -> str | None:
    """Return the name of the attention function set on a model, or None if none was set.

    `set_attn_implementation` is public; what it has set can only be read here.

    Args:
        config: config of the model or of one of its layers.
    """
    name: str | None = config._attn_implementation
    return name


def uses_attention_interface(model: Any) -> bool:
    """Return whether a model's layers call the attention function that its config names.

    For a class that does not, `set_attn_implementation` logs a warning and changes nothing.
    """
    return bool(model._can_set_attn_implementation())


def is_fast_tokenizer_unchanged(kind: type) -> bool:
    """Return whether a tokenizer class leaves the library's tokenisation code unchanged.

    Only then may the fast tokenizer be called directly. A class that overrides a step between
    `__call__` and the fast tokenizer, or switches languages on each call as NLLB and MBart do,
    produces other tokens.
    """
    from transformers import PreTrainedTokenizerFast

    steps = (
        "__call__",
        "_encode_plus",
        "_convert_encoding",
        "_get_padding_truncation_strategies",
        "set_truncation_and_padding",
    )
    return (
        issubclass(kind, PreTrainedTokenizerFast)
        and all(getattr(kind, name) is getattr(PreTrainedTokenizerFast, name) for name in steps)
        and not hasattr(kind, "_switch_to_input_mode")
    )


# torch


def unpadded_attention(kernel: str, *args: Any, **kwargs: Any) -> Tensor:
    """Return attention over texts without padding between them, by a CUDA kernel of torch's.

    The public `torch.nn.attention.varlen` has no float32, and in its first versions no scale.

    Args:
        kernel: `flash` (half precision) or `efficient` (float32).
        args: the operation's.
        kwargs: likewise.
    """
    import torch

    operations = {
        "flash": torch.ops.aten._flash_attention_forward,
        "efficient": torch.ops.aten._efficient_attention_forward,
    }
    output: Tensor = operations[kernel](*args, **kwargs)[0]
    return output


def end_recording(graph: torch.cuda.CUDAGraph, memory: tuple[int, int]) -> None:
    """End a CUDA graph's failed recording, also in torch's memory allocator.

    `capture_end` leaves the allocator recording if the graph is not valid, and torch has no public
    remedy.

    Args:
        graph: whose `capture_begin` has succeeded.
        memory: the memory that it was recorded with, from `torch.cuda.graph_pool_handle`.
    """
    import torch

    try:
        graph.capture_end()
    except RuntimeError:
        # Nothing was begun in some versions, or there is no such function.
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), memory)


def onednn_layout(weight: Tensor) -> Tensor:
    """Return weights as oneDNN lays them out to multiply by them: an opaque tensor.

    Torch's compiler calls it where it finds constant weights; nothing public does.

    Args:
        weight: [out_features, in_features] in float32 on a CPU.
    """
    import torch

    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return laid_out


def onednn_linear(states: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> Tensor:
    """Return states @ weightᵀ + bias by oneDNN, with GELU applied to it on request.

    The public `linear` takes MKL, and computes no activation.

    Args:
        states: [..., in_features] in float32.
        weight: [out_features, in_features], laid out or not.
        bias: [out_features], or None.
        gelu: whether GELU is applied, in its exact form.
    """
    import torch

    activation, variant = ("gelu", "none") if gelu else ("none", "")
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        states, weight, bias, activation, [], variant
    )
    return product


# sentence_transformers

# The method with which a pooling module pools texts without padding. It is replaced by one that
# sums in float32, for which there is no setting.
POOL_FLATTENED = "_forward_flattened"


def flattened_position_offset(module: Any) -> int:
    """Return the position of a text's first token without padding: 2 for RoBERTa.

    `preprocess` adds it; batches made of stored tokens bypass that.

    Args:
        module: sentence-transformers' `Transformer` module.
    """
    offset: int = module._flatten_position_offset
    return offset


def remove_forward_hooks(module: nn.Module) -> None:
    """Remove what runs after the forward pass of a module and of those in it.

    torch removes a hook only by the handle that was returned when it was added.
    """
    for one in module.modules():
        one._forward_hooks.clear()


def forward_takes_task(module: Any) -> bool:
    """Return whether the model in a `Transformer` module has an argument for a text's role.

    The public `model_forward_params` is None for a model that takes any argument, named or not.
    """
    return "task" in module._declared_forward_params


def chat_template_takes_task(module: Any) -> bool:
    """Return whether the chat template of a `Transformer` module depends on a text's role."""
    return bool(module._chat_template_declares_task())


def route_of(router: Any, role: str | None) -> str:
    """Return the name of the route that a `Router` uses for texts of a role.

    Its rule, which considers the default route and the kind of input, is not public.

    Raises:
        ValueError: there is no route for the role.
    """
    route: str = router._resolve_route(task=role, modality="text")
    return route


# mteb


def score_any_two_labels(task: AbsTaskClassification) -> None:
    """Let mteb score a classification whose texts have two labels, neither of them 1.

    mteb takes two labels for a yes and a no, and adds the average precision, which scikit-learn
    refuses unless yes is 1. Texts with two labels of several (a sample, say) then have no score at
    all. For such texts alone labels are numbered anew, the lower of the two 0 and the other 1; no
    other metric depends on what labels are called.
    """
    import numpy as np
    from mteb.abstasks import AbsTaskClassification

    plain: Any = task
    # Of types of its own, such as several labels of a text, mteb computes no such precision.
    if type(plain)._calculate_scores is not AbsTaskClassification._calculate_scores:
        return
    calculate = plain._calculate_scores

    def calculate_scores(y_test: Any, y_pred: Any) -> Any:
        labels = np.unique(y_test).tolist()
        if len(labels) != 2 or 1 in labels:
            return calculate(y_test, y_pred)
        others = sorted(set(np.unique(y_pred).tolist()) - set(labels))
        number = {label: i for i, label in enumerate([*labels, *others])}
        tested, predicted = (
            [number[one] for one in np.asarray(y).tolist()] for y in (y_test, y_pred)
        )
        return calculate(tested, np.asarray(predicted))

    plain._calculate_scores = calculate_scores


def retrieval_texts(rows: Any, prompt_type: Any) -> list[str]:
    """Return the texts of queries or documents as mteb composes them for the model.

    A document is its title and text, a query its text and instruction. Token counts must be those
    of the texts that were encoded.

    Args:
        rows: rows of the dataset, with mteb's column names.
        prompt_type: mteb's, `query` or `document`.
    """
    from mteb._create_dataloaders import _retrieval_texts

    return _retrieval_texts(rows, prompt_type)


def retrieval_scores(
    results: Mapping[str, Mapping[str, float]],
    grades: Mapping[str, Mapping[str, int]],
    k_values: Sequence[int],
) -> Mapping[str, Mapping[str, float]]:
    """Return all retrieval metrics of each query, as mteb computes them.

    A query's sub-queries are scored together; mteb does that for a whole task only.

    Args:
        results: similarities of documents, by query.
        grades: relevant documents and their grades, by query.
        k_values: cut-offs.
    """
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    return calculate_retrieval_scores(results, grades, list(k_values)).all_scores


def summary_metrics(task: Any) -> Callable[..., Any]:
    """Return the function that turns a summarization task's similarities and grades into scores.

    mteb applies it to all documents at once; lcbench applies it to each document.
    """
    metrics: Callable[..., Any] = task.evaluator._calculate_metrics
    return metrics
