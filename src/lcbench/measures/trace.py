"""Runs a model on one text at a time, and reports what its attention and its layers computed.

A layer (one attention and what belongs to it, mostly a feed-forward network) adds to the residual
stream and normalises it. What is on the stream is found from the computation itself, not from names
of modules: the layer's output is followed back through sums and normalisations to its input. So
post- and pre-LayerNorm, and any order of the two, are read alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from lcbench.encode.tokens import Tokenizer
from lcbench.errors import InjectionError, RequestError
from lcbench.repair.blocks import SUMS
from lcbench.system.hardware import memory_gib
from lcbench.system.thirdparty import attention_implementation, uses_attention_interface
from lcbench.tempscale.inject import inject
from lcbench.tempscale.transformer import blocks_of, find_transformer

if TYPE_CHECKING:
    from lcbench.tempscale.observe import Observation
    from lcbench.tempscale.policy import Role

Measured = TypeVar("Measured")

_BRANCHES = ("attention", "feed-forward")
# Weights of as many heads as fit are computed at once, and at least one head's: 268 MB in float32
# for a text of 8,192 tokens. A tile is as many rows of them.
WEIGHTS_BYTES = 256 * 2**20
TILE_BYTES = 32 * 2**20
# Copies of all heads' weights that an eager layer holds at once, and of one head's that measuring
# takes: weights, and tiles of logits.
_EAGER_COPIES, _OWN_COPIES = 3, 2
_REMEDY = (
    "Attention is measured in models that lcbench.inject takes; for others, lcbench.collapse "
    "measures the embeddings."
)


@dataclass(frozen=True)
class Step:
    """One step along the residual stream.

    Attributes:
        name: `attention added`, `attention normalised`, `feed-forward added` and so on.
        size: ‖HC[X]‖_F of the stream after it.
        branch: the same of what is added, where something is.
    """

    name: str
    size: float
    branch: float | None


@dataclass(frozen=True)
class Projections:
    """The linear maps around an attention layer, and the sizes of their input and output.

    Attributes:
        values: W_V of each key-value head, [heads, size, input dimensions].
        output: W_O of each head, [heads, output dimensions, size].
        entering: ‖HC[X]‖_F of what the values are made of; before pre-LayerNorm attention it is
            normalised.
        leaving: ‖HC[MSA]‖_F of what the attention adds, after W_O.
    """

    values: Tensor
    output: Tensor
    entering: float
    leaving: float


@dataclass(frozen=True)
class Stream:
    """What one layer does to the residual stream of one text.

    Attributes:
        entering: ‖HC[X]‖_F before the layer.
        steps: the steps through it; the last one's size is that of its output.
        projections: those of its attention; None: not found.
    """

    entering: float
    steps: tuple[Step, ...]
    projections: Projections | None


@dataclass
class Attended:
    """A layer's attention while the model runs.

    Attributes:
        layer: its number, from 0.
        observation: what it computed.
    """

    layer: int
    observation: Observation


@dataclass
class Trace(Generic[Measured]):
    """What one layer computed for one text.

    Attributes:
        policy: the temperature policy, in canonical form.
        text: the text's number, from 0.
        tokens: the number of its tokens.
        layer: the layer's number, from 0.
        tau: its temperature.
        measured: what was measured of its attention.
        stream: what it does to the residual stream, where that was asked for.
    """

    policy: str
    text: int
    tokens: int
    layer: int
    tau: float
    measured: Measured
    stream: Stream | None

    def place(self) -> dict[str, Any]:
        """Return the columns that say which layer, text and temperature this is."""
        names = ("policy", "text", "tokens", "layer", "tau")
        return {name: getattr(self, name) for name in names}


def trace(
    model: Any,
    texts: Sequence[str] | Sequence[Sequence[int]],
    tau: Any,
    measure: Callable[[Attended], Measured],
    *,
    tokenizer: Any = None,
    role: Role | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    memory: float | None = None,
    streams: bool = False,
) -> Iterator[Trace[Measured]]:
    """Yield what each layer computed, by policy, text and layer.

    Args:
        model: a `SentenceTransformer` or a `PreTrainedModel`, on eager or sdpa attention.
        texts: texts, or their token ids with special tokens.
        tau: a temperature policy as `lcbench.inject` takes it, or a list of several.
        measure: called after each attention; what it returns is kept.
        tokenizer: that of a `PreTrainedModel`, for texts that are not token ids.
        role: whose texts these are, for a policy by role.
        layers: layers to measure, from 0; None: all.
        heads: heads that will be measured; checked here.
        memory: the most memory in GiB that attention weights may take; None: that of the machine.
        streams: whether to follow the residual stream.

    Raises:
        InjectionError: the model has no attention, or none that can be measured.
        RequestError: a layer or head that the model does not have, no texts, or a text whose
            attention weights need more memory than there is.
    """
    transformer = _transformer(model)
    batches = _token_ids(model, texts, tokenizer, role)
    _check_numbers("layer", layers, getattr(transformer.config, "num_hidden_layers", None))
    _check_numbers("head", heads, getattr(transformer.config, "num_attention_heads", None))
    longest = max(len(ids) for ids in batches)
    _check_memory(transformer, longest, memory_gib() if memory is None else memory)
    for policy in tau if isinstance(tau, list | tuple) else [tau]:
        try:
            injection = inject(model, policy)
        except InjectionError as error:
            raise InjectionError(f"{error} {_REMEDY}") from error
        with injection, _without_cache(transformer):
            injection.role = role
            watch = _Watch(transformer, measure, layers, streams)
            injection.observer = watch.attend
            for number, ids in enumerate(batches):
                with watch, torch.no_grad():
                    _run(transformer, ids)
                for layer, one in sorted(watch.layers.items()):
                    yield Trace(
                        injection.policy.canonical,
                        number,
                        len(ids),
                        layer,
                        one.tau,
                        one.measured,
                        one.stream,
                    )


def high_frequency(states: Tensor) -> float:
    """Return ‖HC[X]‖_F, the size of what token vectors differ by from their mean.

    Args:
        states: [tokens, dimensions].
    """
    wide = states.double()
    return float((wide - wide.mean(dim=0)).norm())


def log_ratio(after: float, before: float) -> float:
    """Return log(after / before); NaN where both are 0, as of a text of one token."""
    if before == 0 or after == 0:
        return math.nan if before == after else math.copysign(math.inf, after - before)
    return math.log(after) - math.log(before)


@dataclass
class _Layer(Generic[Measured]):
    tau: float
    measured: Measured
    stream: Stream | None = None


@dataclass
class _Point:
    """A tensor in a layer that has the shape of the stream, and what it was made of."""

    tensor: Tensor
    size: float
    is_sum: bool = False
    parts: tuple[_Point, ...] = ()


@dataclass
class _Block:
    """What happens in a layer until its output is there."""

    start: _Point
    points: dict[int, _Point]
    # Modules, inputs and outputs.
    linears: list[tuple[nn.Linear, Tensor, Tensor]] = field(default_factory=list)
    layer: int | None = None
    observation: Observation | None = None
    # How many linear maps had run before its attention.
    before: int = 0

    @classmethod
    def of(cls, states: Tensor) -> _Block:
        start = _Point(states, high_frequency(states[0]))
        return cls(start, {states.data_ptr(): start})

    def point(self, tensor: Tensor) -> _Point:
        known = self.points.get(tensor.data_ptr())
        return known or _Point(tensor, high_frequency(tensor[0]))

    def add(self, made: Tensor, parts: tuple[_Point, ...], *, is_sum: bool) -> None:
        point = _Point(made, high_frequency(made[0]), is_sum, parts)
        self.points[made.data_ptr()] = point


class _Watch(TorchFunctionMode, Generic[Measured]):
    """Watches a model while it is active; `layers` has what the last text's layers computed."""

    def __init__(
        self,
        transformer: PreTrainedModel,
        measure: Callable[[Attended], Measured],
        wanted: Sequence[int] | None,
        streams: bool,
    ) -> None:
        super().__init__()
        self._transformer = transformer
        self._measure = measure
        self._wanted = wanted
        self._streams = streams
        self._hooks: list[Any] = []
        self._block: _Block | None = None
        self._calls = 0
        self.layers: dict[int, _Layer[Measured]] = {}

    def __enter__(self) -> _Watch[Measured]:
        self.layers = {}
        self._calls = 0
        if self._streams:
            self._attach()
            super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._block = None
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._streams:
            super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        block = self._block
        if block is None or func not in SUMS or not self._are_states(block, *args[:2]):
            return func(*args, **(kwargs or {}))
        # Before the sum, which may be written over one of them.
        parts = (block.point(args[0]), block.point(args[1]))
        made = func(*args, **(kwargs or {}))
        block.add(made, parts, is_sum=True)
        return made

    def attend(self, observation: Observation) -> None:
        """Measure the attention of the next layer."""
        layer, self._calls = self._calls, self._calls + 1
        if self._wanted is not None and layer not in self._wanted:
            return
        measured = self._measure(Attended(layer, observation))
        self.layers[layer] = _Layer(observation.tau, measured)
        if self._block is not None:
            self._block.layer, self._block.observation = layer, observation
            self._block.before = len(self._block.linears)

    def _attach(self) -> None:
        blocks = blocks_of(self._transformer)
        for name, module in self._transformer.named_modules():
            if name in blocks:
                self._hooks += [
                    module.register_forward_pre_hook(self._enter, with_kwargs=True),
                    module.register_forward_hook(self._leave),
                ]
            elif isinstance(module, nn.Linear):
                self._hooks.append(module.register_forward_hook(self._note_linear))
            elif "Norm" in type(module).__name__:
                self._hooks.append(module.register_forward_hook(self._note_norm))

    @staticmethod
    def _are_states(block: _Block, *tensors: Any) -> bool:
        shape = block.start.tensor.shape
        return len(tensors) == 2 and all(
            isinstance(one, Tensor) and one.shape == shape for one in tensors
        )

    def _enter(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._block = _Block.of(args[0] if args else kwargs["hidden_states"])

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        block, self._block = self._block, None
        if block is None or block.layer is None:
            return
        states = output if isinstance(output, Tensor) else output[0]
        steps = _steps(block, states)
        if steps is None:
            raise InjectionError(
                f"{type(module).__name__}: its output is not its input with branches added and "
                "normalised, so steps of the residual stream cannot be told apart: measure "
                "attention alone (lcbench.measures.attention)."
            )
        self.layers[block.layer].stream = Stream(block.start.size, steps, _projections(block))

    def _note_linear(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if self._block is not None:
            self._block.linears.append((module, args[0], output))  # type: ignore[arg-type]

    def _note_norm(self, _: nn.Module, args: Any, output: Any) -> None:
        block = self._block
        if block is not None and self._are_states(block, args[0], output):
            block.add(output, (block.point(args[0]),), is_sum=False)


def _steps(block: _Block, states: Tensor) -> tuple[Step, ...] | None:
    """Return the steps from a layer's input to its output; None: there is no such way."""
    last = block.points.get(states.data_ptr())
    way = None if last is None else _way(block.start, last)
    if way is None:
        return None
    sums = sum(point.is_sum for point, _ in way)
    names = _BRANCHES if sums == 2 else tuple(f"branch {number}" for number in range(sums))
    steps: list[Step] = []
    added = 0
    for point, branch in way:
        added += point.is_sum
        name = names[added - 1] if added else "input"
        size = None if branch is None else branch.size
        steps.append(Step(f"{name} {'added' if point.is_sum else 'normalised'}", point.size, size))
    return tuple(steps)


def _way(start: _Point, point: _Point) -> list[tuple[_Point, _Point | None]] | None:
    """Return the points between a layer's input and `point`, each with what was added to it."""
    if point is start:
        return []
    ways = []
    for number, part in enumerate(point.parts):
        way = _way(start, part)
        if way is not None:
            other = point.parts[1 - number] if point.is_sum else None
            ways.append([*way, (point, other)])
    return min(ways, key=len, default=None)


def _projections(block: _Block) -> Projections | None:
    """Return the maps around a layer's attention, as far as they are plain linear ones.

    Values are made by the linear map whose output holds them, and the first map after the attention
    takes what it returned.
    """
    observation = block.observation
    if observation is None or block.before == len(block.linears):
        return None
    values = observation.values
    entering = next(
        (
            (module.weight[rows], states)
            for module, states, made in reversed(block.linears[: block.before])
            if (rows := _rows(values, made[0])) is not None
        ),
        None,
    )
    output, attended, made = block.linears[block.before]
    returned = observation.output.flatten(1)
    if entering is None or attended[0].shape != returned.shape:
        return None
    if not torch.equal(attended[0], returned):
        return None
    weights, states = entering
    return Projections(
        weights.view(*values.shape[::2], -1),
        output.weight.unflatten(1, (observation.heads, -1)).transpose(0, 1),
        high_frequency(states[0]),
        high_frequency(made[0]),
    )


def _rows(values: Tensor, made: Tensor) -> Tensor | None:
    """Return which outputs of a linear map are values: [heads · size]; None: none.

    Args:
        values: [heads, tokens, size].
        made: what the map has made, [tokens, outputs].
    """
    heads, tokens, size = values.shape
    if len(made) != tokens or made.shape[1] % (heads * size):
        return None
    flat = values.transpose(0, 1).reshape(tokens, -1)
    # One for all three, or one for values alone; these come last.
    for start in range(made.shape[1] - heads * size, -1, -heads * size):
        if torch.equal(made[:, start : start + heads * size], flat):
            return torch.arange(start, start + heads * size, device=values.device)
    return None


def _transformer(model: Any) -> PreTrainedModel:
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise InjectionError(
            f"{kind} is no loaded model: load it with SentenceTransformer(…) or "
            "AutoModel.from_pretrained(…). " + _REMEDY
        )
    try:
        transformer = find_transformer(model)
    except InjectionError as error:
        raise InjectionError(f"{error} {_REMEDY}") from error
    back_end = attention_implementation(transformer.config) or "eager"
    if uses_attention_interface(transformer) and back_end not in ("eager", "sdpa"):
        raise InjectionError(
            f"{kind} runs on {back_end} attention, which is not measured: load it with "
            "attn_implementation='sdpa' or 'eager'."
        )
    return transformer


def _token_ids(
    model: Any,
    texts: Sequence[str] | Sequence[Sequence[int]],
    tokenizer: Any,
    role: Role | None,
) -> list[list[int]]:
    if isinstance(texts, str) or len(texts) == 0:
        raise RequestError("texts: give a list of at least one text, or of lists of token ids.")
    if not isinstance(texts[0], str):
        found = [[int(one) for one in text] for text in texts]
    elif hasattr(model, "preprocess"):
        found = [one.ids.tolist() for one in Tokenizer(model, role).tokenize(list(texts))]  # type: ignore[arg-type]
    elif tokenizer is not None:
        found = tokenizer(list(texts), truncation=True)["input_ids"]
    else:
        raise RequestError(
            f"{type(model).__name__} has no tokenizer of its own: pass tokenizer=…, or token ids "
            "instead of texts."
        )
    if not all(found):
        raise RequestError("texts: one has no tokens, also no special ones: leave it out.")
    return found


def _check_numbers(kind: str, numbers: Sequence[int] | None, count: int | None) -> None:
    if numbers is None:
        return
    if len(numbers) == 0:
        raise RequestError(f"{kind}s=[] selects none: leave it out to measure all.")
    wrong = [number for number in numbers if count is not None and not 0 <= number < count]
    if wrong and count is not None:
        raise RequestError(
            f"{kind} {wrong[0]} is not in the model, which has {count}: choose from 0 to "
            f"{count - 1}."
        )


def memory_needed(model: nn.Module, tokens: int) -> float:
    """Return the memory in GiB that attention weights of a text take while they are measured.

    Args:
        model: a `SentenceTransformer`, a `PreTrainedModel`, or a module that contains one.
        tokens: of the text.

    Raises:
        InjectionError: there is no model with attention in it.
    """
    transformer = find_transformer(model)
    heads = int(getattr(transformer.config, "num_attention_heads", 1))
    size = max(4, transformer.dtype.itemsize) * tokens * tokens / 2**30
    tiles = min(heads * size, (WEIGHTS_BYTES + TILE_BYTES) / 2**30) + _OWN_COPIES * size
    return tiles + (_EAGER_COPIES * heads * size if _is_eager(transformer) else 0)


def _is_eager(transformer: PreTrainedModel) -> bool:
    interface = uses_attention_interface(transformer)
    return not interface or attention_implementation(transformer.config) != "sdpa"


def _check_memory(transformer: PreTrainedModel, tokens: int, memory: float) -> None:
    """Check that attention weights of the longest text fit, before anything is run."""
    needed = memory_needed(transformer, tokens)
    if needed > memory:
        other = ""
        if _is_eager(transformer) and uses_attention_interface(transformer):
            other = " or load the model with attn_implementation='sdpa'"
        raise RequestError(
            f"attention weights of a text of {tokens:,} tokens need {needed:.1f} GiB, and there "
            f"are {memory:.1f}: measure shorter texts (model.max_seq_length = …){other}."
        )


@contextmanager
def _without_cache(transformer: PreTrainedModel) -> Iterator[None]:
    """Keep a decoder from copying its keys and values for tokens to come."""
    config = transformer.config
    before = getattr(config, "use_cache", None)
    training = transformer.training
    if before is not None:
        config.use_cache = False
    transformer.eval()
    try:
        yield
    finally:
        if before is not None:
            config.use_cache = before
        transformer.train(training)


def _run(transformer: PreTrainedModel, ids: Sequence[int]) -> None:
    tokens = torch.tensor([ids], device=transformer.device)
    transformer(input_ids=tokens, attention_mask=torch.ones_like(tokens))
