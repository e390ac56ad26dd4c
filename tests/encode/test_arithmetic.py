"""How numbers are multiplied: set, refused, and written down; here as if there was a GPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import settings as settings_of

from lcbench.encode import arithmetic, onednn
from lcbench.encode.forward import Forward
from lcbench.encode.load import load
from lcbench.errors import RequestError
from lcbench.hub.models import locate
from lcbench.plan import machine
from lcbench.results import provenance
from lcbench.score.pool import processes
from lcbench.system.hardware import share_cores

VARIABLES = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_float32_is_ieee_whatever_was_set_before(dtype: str, device: str) -> None:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    arithmetic.pin(dtype, device)
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cuda.matmul.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cuda.cudnn_sdp_enabled() is (device == "cpu")
    found = arithmetic.facts(device)
    assert found["float32_products"] == "ieee"
    kernels = None if device == "cpu" else ["flash", "mem_efficient", "math"]
    assert found["attention_kernels"] == kernels


def test_tf32_is_a_protocol(ampere: None) -> None:
    arithmetic.pin("tf32", "cuda:1")
    assert torch.backends.cuda.matmul.allow_tf32 is True
    assert torch.backends.cudnn.allow_tf32 is True
    assert arithmetic.facts("cuda:1")["float32_products"] == "tf32"
    assert arithmetic.weights_dtype("tf32") == "float32"
    assert arithmetic.weights_dtype("bfloat16") == "bfloat16"
    # The next model of the process may be of another.
    arithmetic.pin("float32", "cuda:1")
    assert arithmetic.facts("cuda:1")["float32_products"] == "ieee"


def test_what_is_measured_is_measured_as_the_protocol_has_it() -> None:
    with arithmetic.products_in("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"
    machine.matmul_rate.cache_clear()
    assert machine.matmul_rate("cpu", "tf32", 16) > 0


def test_tf32_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"only NVIDIA GPUs multiply in TF32.* uses cpu.*paper"):
        arithmetic.pin("tf32", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(RequestError, match="Tesla T4 is older than Ampere"):
        arithmetic.pin("tf32", "cuda")
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_environment_that_overrides_it_is_refused(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(RequestError, match=rf"{name}=1 is set.*unset {name}.*protocol\.dtype=tf32"):
        arithmetic.pin(dtype, "cuda:0")
    # On a CPU neither does anything.
    arithmetic.pin(dtype, "cpu")
    for value in ("0", ""):
        monkeypatch.setenv(name, value)
        arithmetic.pin(dtype, "cuda:0")


def test_an_environment_that_forbids_tf32_is_refused_under_it_alone(
    ampere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    arithmetic.pin("float32", "cuda")
    with pytest.raises(RequestError, match="NVIDIA_TF32_OVERRIDE=0 is set"):
        arithmetic.pin("tf32", "cuda")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    arithmetic.pin("tf32", "cuda")


def test_a_record_says_how_embeddings_were_computed(minilm_folder: Path) -> None:
    model = load(locate(settings_of(minilm_folder), offline=True), device="cpu", dtype="float32")
    forward = Forward(model, batch_tokens=2048, lanes=1)
    try:
        assert forward.arithmetic() == {
            "float32_products": "ieee",
            **({"onednn": True} if onednn.is_used(torch.zeros(1)) else {}),
            "attention": "sdpa",
            "attention_kernels": None,
            "batch_tokens": 2048,
            "least_batch_tokens": 2048,
            "lengths_multiple_of": 1,
        }
    finally:
        forward.close()
    hardware = provenance.environment("cpu")["hardware"]
    assert [hardware[name] for name in ("gpu", "cuda", "cudnn", "driver")] == [None] * 4


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC\n"
            "GCC version:  gcc version 12.3.0\n",
            "550.54.14",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n",
            "560.35.03",
        ),
        ("something else", None),
        (None, None),
    ],
)
def test_the_driver_is_the_kernel_modules(
    text: str | None, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Path, **_: Any) -> str:
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(Path, "read_text", read)
    assert provenance._driver() == version


@pytest.mark.parametrize(
    ("asked", "scoring", "threads"), [(None, 8, "8"), (0, 0, "16"), (20, 20, "1")]
)
def test_cores_are_shared_between_scoring_and_tokenising(
    asked: int | None, scoring: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcbench.score.pool.cores", lambda: 16)
    monkeypatch.setattr("lcbench.system.hardware.cores", lambda: 16)
    monkeypatch.setattr("lcbench.score.pool.memory_gib", lambda: 128.0)
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    assert processes(asked, on_gpu=True) == scoring
    share_cores(scoring)
    import os

    assert os.environ["RAYON_NUM_THREADS"] == threads
    # What somebody has set stays.
    share_cores(3)
    assert os.environ["RAYON_NUM_THREADS"] == threads
