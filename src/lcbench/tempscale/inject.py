"""Makes a loaded model compute attention at a temperature policy, reversibly.

A = softmax((scale · QKᵀ + bias) / τ)  (arXiv:2410.24200, equation 6; a position bias is divided as
well, as in its authors' code, unless the policy keeps it; where logits are soft-capped, as in Gemma
2, they are divided after the cap). Masks hold 0 or minus infinity, which no τ changes.

There are two mechanisms:

- The attention interface of `transformers`, which most architectures use. Each attention function
  is wrapped once a process; the wrapper hands a layer that has no temperature over to the original
  untouched, and for one that has, divides scale, bias and cap (or the queries, where texts differ).
  Dividing a number costs nothing.
- MPNet and DeBERTa compute their own softmax. While one of their layers runs, the logits that it
  hands to `softmax` are divided.

A layer's temperature is an attribute of that layer, so models injected at different policies do
not touch each other. Several threads may run one injected model at once: what belongs to one run
(the lengths of its texts, how often each layer has run) is kept by thread.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from lcbench.errors import InjectionError, RequestError
from lcbench.system.thirdparty import attention_implementation, uses_attention_interface
from lcbench.tempscale.attend import (
    EAGER,
    LAYER_ATTRIBUTE,
    Layer,
    by_token_and_head,
    register_eager,
    wrap,
)
from lcbench.tempscale.lengths import TemperaturesByLength
from lcbench.tempscale.observe import Observer
from lcbench.tempscale.policy import Policy, Role, Temperature, parse
from lcbench.tempscale.prove import (
    Probe,
    Proof,
    check_probe,
    run_probe,
)
from lcbench.tempscale.softmax import computes_own_softmax, scale_softmax
from lcbench.tempscale.transformer import find_transformer, shape_of
from lcbench.tempscale.unpadded import runs_unpadded, text_of_token

_ROLES: tuple[Role, ...] = ("query", "document")
_INJECTED = "_lcbench_injected"


def refuse_injected(model: nn.Module) -> None:
    """Refuse a model that already runs at a temperature.

    Raises:
        InjectionError: it does.
    """
    for module in model.modules():
        if getattr(module, _INJECTED, False):
            raise InjectionError(
                f"{type(module).__name__} already runs at a temperature; remove that injection "
                "first."
            )


class _Run(threading.local):
    """The state of a thread: its counts of calls, and the batch that the model is processing.

    Attributes:
        calls: number of calls of each attention layer by name, since the last check.
        rows: temperatures of each text, for a policy by length: [texts, layers or 1, heads or 1].
        text_of_token: number of the text that each token of an unpadded batch belongs to.
        role: role of the texts, according to the call that encodes them; or None.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.rows: Tensor | None = None
        self.text_of_token: Tensor | None = None
        self.role: Role | None = None


class Injection:
    """Keeps a model at a policy until `.remove()` is called or its context ends.

    Attributes:
        policy: the applied policy, simplified for this model.
        role: role of the texts in a plain `encode` or forward pass, for a policy by role: `query`,
            `document`, or None: unknown, which raises an error. `encode_query` and
            `encode_document` of a `SentenceTransformer`, which mteb and evaluators call, set it
            themselves.
        proof: result of the checks made when the policy was applied.
        observer: function that each layer hands its attention to (`observe.Observation`), or None.
    """

    def __init__(self, model: nn.Module, policy: Policy, *, as_input: bool = False) -> None:
        """Apply a policy to a model.

        Args:
            model: a `SentenceTransformer`, a `PreTrainedModel`, or a module that holds one.
            policy: the policy.
            as_input: whether temperatures are tensors that `change` fills with others, so that code
                compiled for one of them is right for all. Queries are divided by them.

        Raises:
            InjectionError: the model's attention cannot be reached in every layer.
        """
        started = time.perf_counter()
        self._model = model
        self._as_input = as_input
        self._transformer = find_transformer(model)
        self._modules: list[nn.Module] = []
        self._hooks: list[Any] = []
        self._run = _Run()
        self._by_length: TemperaturesByLength | None = None
        self._unwatched: Any = None
        self._role: Role | None = None
        self._unencoded: list[tuple[nn.Module, Any]] = []
        self.observer: Observer | None = None
        refuse_injected(model)
        self.policy = policy.resolve(shape_of(model))
        self._read_policy()
        self._original = attention_implementation(self._transformer.config) or "eager"
        try:
            setattr(self._transformer, _INJECTED, True)
            self._attach()
            self.proof = self._prove(started)
            self._watch_encoding(model)
        except BaseException:
            self.remove()
            raise

    def __repr__(self) -> str:
        kind = type(self._transformer).__name__
        state = "" if self._modules else ", removed"
        return f"<Injection of τ = {self.policy.canonical} into {kind}{state}>"

    @property
    def role(self) -> Role | None:
        """Return whose texts a plain `encode` or forward pass has."""
        return self._role

    @role.setter
    def role(self, role: Role | None) -> None:
        if role not in ("query", "document", None):
            raise RequestError(f"role={role!r} is none of: 'query', 'document', None.")
        self._role = role

    def takes(self, policy: Policy) -> bool:
        """Return whether `change` can apply a policy, so that compiled code need not change."""
        other = policy.resolve(shape_of(self._model))
        return (
            self._as_input
            and other.by_length == (self._by_length is not None)
            and other.by_head == self.policy.by_head
        )

    def change(self, policy: Policy) -> None:
        """Apply another policy, for which `takes` returns true, and prove it.

        The model's forward pass is run for it, so it must not be replaced by a compiled one.

        Raises:
            InjectionError: a layer does not compute at its temperature; the model is as it was
                before any injection.
        """
        started = time.perf_counter()
        self.policy = policy.resolve(shape_of(self._model))
        self._read_policy()
        try:
            self._assign()
            if self._by_length is not None:
                self._by_length.change(self.policy, self._transformer.device)
            self.proof = self._prove(started)
        except BaseException:
            self.remove()
            raise

    def _read_policy(self) -> None:
        """Look up what a compiled model cannot ask a policy while it runs, whatever its class."""
        self.keeps_bias = self.policy.keeps_bias
        self._goes_by_role = self.policy.for_role("query") != self.policy.for_role("document")

    def _assign(self) -> None:
        """Give each attention layer its temperature in either role."""
        for role in _ROLES:
            layers = sum(_layer(module).calls_a_run for module in self._modules)
            taus = iter(self.policy.for_role(role).of_layers(layers))
            for module in self._modules:
                layer = _layer(module)
                # A module that runs several times is shared by that many layers.
                own = {next(taus) for _ in range(layer.calls_a_run)}
                if len(own) > 1 or self._differ(layer):
                    raise InjectionError(
                        f"{type(self._transformer).__name__}: {layer.name} is shared by layers of "
                        "different temperatures."
                    )
                layer.taus[role] = own.pop()
                if self._as_input or self.policy.by_head:
                    self._fill(layer, role)

    def _differ(self, layer: Layer) -> bool:
        """Return whether layers that share a module differ in their temperatures by length."""
        shared = self.policy.examples()[:, layer.index : layer.index + layer.calls_a_run]
        return bool((shared != shared[:, :1]).any())

    def _fill(self, layer: Layer, role: Role) -> None:
        """Put a layer's temperature where compiled code reads it, or that of each head."""
        # Also for runs that are differentiated, where the first was not.
        with torch.inference_mode(False):
            taus = torch.tensor(layer.taus[role], dtype=self._dtype_of_rows)
            taus = taus.view(1, -1, 1, 1) if taus.dim() else taus
            if role not in layer.tensors:
                layer.tensors[role] = torch.empty_like(taus, device=self._transformer.device)
            layer.tensors[role].copy_(taus)

    def _attach(self) -> None:
        transformer = self._transformer
        own = [module for module in transformer.modules() if computes_own_softmax(module)]
        if own:
            for module in own:
                self._hooks += scale_softmax(module)
        elif uses_attention_interface(transformer):
            if self._original == "eager":
                transformer.set_attn_implementation(register_eager())
            else:
                wrap(self._original)
        else:
            raise InjectionError(
                f"{type(transformer).__name__} neither uses the attention interface of "
                "transformers nor is it a model whose softmax is known here, so its attention "
                "temperature cannot be set; running it would report the baseline as TempScale."
            )
        # Which modules are attention layers is found by running the model, not by their names.
        modules = [call.module for call in self._probe().calls]
        names = {id(module): name for name, module in transformer.named_modules()}
        for module in modules:
            if id(module) not in names:
                raise InjectionError(
                    f"{type(transformer).__name__}: a {type(module).__name__} outside the model "
                    "computes its attention."
                )
            if not hasattr(module, LAYER_ATTRIBUTE):
                self._modules.append(module)
                calls = [other is module for other in modules]
                layer = Layer(names[id(module)], self, {}, calls.index(True), sum(calls))
                setattr(module, LAYER_ATTRIBUTE, layer)
        self._assign()
        if self.policy.by_length:
            self._watch_lengths()

    def _prove(self, started: float) -> Proof:
        """Prove every layer at the temperatures that the policy can give it."""
        shown: dict[str, list[float]] = {}
        largest = 0.0
        roles = _ROLES if self._goes_by_role else _ROLES[1:]
        layouts = (True, False) if runs_unpadded(self._transformer) else (True,)
        for role, padded in itertools.product(roles, layouts):
            self._run.role = role
            try:
                probe = self._probe(padded=padded)
            finally:
                self._run.role = None
            largest = max(largest, check_probe(self._transformer, probe, self._modules))
            for call in probe.calls:
                taus = shown.setdefault(_layer(call.module).name, [])
                taus += [tau for tau in call.tau if tau not in taus]
        self.forget()
        return Proof(
            layers=tuple(shown),
            tau=tuple(tuple(taus) for taus in shown.values()),
            largest_error=largest,
            seconds=time.perf_counter() - started,
        )

    def _probe(self, *, padded: bool = True) -> Probe:
        """Run the probe batch on the model's own back end, and look for attention outside."""
        if self._original != "flex_attention":
            return run_probe(self._transformer, padded=padded)
        # What a model computes apart from its attention does not depend on the back end.
        self._transformer.set_attn_implementation(register_eager())
        outside = run_probe(self._transformer).outside
        self._transformer.set_attn_implementation(self._original)
        probe = run_probe(self._transformer, watch=False)
        probe.outside += outside
        return probe

    def _watch_lengths(self) -> None:
        """Intercept every batch before it goes through the model.

        Through `forward` itself: sentence-transformers calls that, and so no hook would run.
        """
        forward = self._transformer.forward
        by_length = TemperaturesByLength(self.policy, self._dtype_of_rows, self._transformer.device)

        @functools.wraps(forward)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._find_rows(by_length, args, kwargs)
            try:
                return forward(*args, **kwargs)
            finally:
                self._run.rows = None

        self._unwatched = self._transformer.__dict__.get("forward")
        self._transformer.forward = watched
        self._by_length = by_length

    def _watch_encoding(self, model: nn.Module) -> None:
        """Intercept the role of the texts in each call of `encode`, which passes it as `task`."""
        if "sentence_transformers" not in sys.modules:
            return
        from sentence_transformers import SentenceTransformer

        for module in model.modules():
            if isinstance(module, SentenceTransformer):
                self._unencoded.append((module, module.__dict__.get("encode")))
                module.encode = self._watched(module.encode)  # type: ignore[method-assign]

    def _watched(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(encode)

        @functools.wraps(encode)
        def watched(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind_partial(*args, **kwargs).arguments
            if given.get("pool") is not None or isinstance(given.get("device"), list):
                raise InjectionError(
                    f"{self!r} is in this process; processes of a pool or of several devices have "
                    "the model without it, or as it was at their start. Encode with the model "
                    "itself, or export it at a constant temperature (lcbench export)."
                )
            task = given.get("kwargs", {}).get("task")
            before, self._run.role = self._run.role, task if task in _ROLES else None
            try:
                return encode(*args, **kwargs)
            finally:
                self._run.role = before

        return watched

    def _find_rows(
        self, by_length: TemperaturesByLength, args: Any, kwargs: dict[str, Any]
    ) -> None:
        """Record the temperature of each text in a batch, by its length."""
        ids: Any = kwargs.get("input_ids", args[0] if args else kwargs.get("inputs_embeds"))
        self._run.rows = by_length.of_batch(ids, kwargs)
        starts = kwargs.get("cu_seq_lens_q")
        self._run.text_of_token = None if starts is None else text_of_token(starts, ids.shape[1])

    @property
    def of_layers(self) -> dict[str, Temperature]:
        """Return the documents' temperature in each layer by its name; 1 if it goes by length."""
        return {_layer(module).name: _layer(module).taus["document"] for module in self._modules}

    @property
    def _dtype_of_rows(self) -> torch.dtype:
        """Return the type of temperatures by length; float64 would make all queries float64."""
        return torch.promote_types(torch.float32, self._transformer.dtype)

    def exact_temperatures(self, layer: Layer) -> tuple[tuple[float, ...], ...]:
        """Return a layer's temperature in this run as it was requested.

        By text and head where these differ; by length there are two texts, as in the probe.
        """
        if self._by_length is not None:
            return tuple(map(tuple, _of_layer(self._by_length.extremes, layer).tolist()))
        tau = layer.taus[self._role_at_work]
        return (tau if isinstance(tau, tuple) else (tau,),)

    def temperature(self, layer: Layer) -> float | Tensor:
        """Return the temperature of a layer in this run, which divides its queries or logits.

        A number; a tensor without dimensions, in compiled code; or, where texts or heads differ, a
        tensor [texts or 1, heads or 1, 1, 1], of an unpadded batch [1, heads or 1, tokens, 1].

        Raises:
            InjectionError: it differs by role, and whose texts these are is not known; or by
                length, and the batch came by a way that is not watched.
        """
        if self._by_length is None:
            role = self._role_at_work
            tensor = layer.tensors.get(role)
            return layer.taus[role] if tensor is None else tensor  # type: ignore[return-value]
        rows = self._run.rows
        if rows is None:
            raise InjectionError(
                f"{type(self._transformer).__name__} was run without going through its forward, so "
                "the lengths of its texts, and with them their temperatures, are not known."
            )
        own, text = _of_layer(rows, layer), self._run.text_of_token
        return own[:, :, None, None] if text is None else by_token_and_head(own, text)

    @property
    def _role_at_work(self) -> Role:
        """Return the role whose temperature the current texts get.

        Raises:
            InjectionError: it differs by role, and whose texts these are is not known.
        """
        if not self._goes_by_role:
            return "document"
        role = self._run.role or self._role
        if role is None:
            raise InjectionError(
                f"{self!r} goes by role, and whether these texts are queries or documents is "
                "not known: use encode_query and encode_document, or say it before: "
                'injection.role = "query" (or "document").'
            )
        return role

    def check(self) -> None:
        """Check that all layers have run at their temperature, equally often, since the last check.

        It looks at the runs of the thread that calls it. Cheap enough (counters only) for once a
        batch: a layer that was replaced or bypassed after the injection is found before its
        embeddings are scored.

        Raises:
            InjectionError: naming the first layer that has not.
        """
        layers = [_layer(module) for module in self._modules]
        calls = Counter(self._run.calls)
        self.forget()
        runs = max((calls[layer.name] // layer.calls_a_run for layer in layers), default=0)
        for layer in layers:
            if runs == 0 or calls[layer.name] != runs * layer.calls_a_run:
                raise InjectionError(
                    f"{type(self._transformer).__name__}: the attention layer {layer.name} no "
                    f"longer runs at τ = {self.policy.canonical}; it was replaced or bypassed "
                    "after the injection."
                )

    def remove(self) -> None:
        """Restore the model's own attention. Doing it twice is harmless."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for module, unwatched in self._unencoded:
            module.__dict__.pop("encode", None)
            if unwatched is not None:
                module.encode = unwatched
        self._unencoded = []
        if attention_implementation(self._transformer.config) == EAGER:
            self._transformer.set_attn_implementation(self._original)
        if self._by_length is not None:
            self._transformer.__dict__.pop("forward", None)
            if self._unwatched is not None:
                self._transformer.forward = self._unwatched
            self._by_length = None
        for module in self._modules:
            delattr(module, LAYER_ATTRIBUTE)
        self._modules = []
        self._run.rows = None
        if hasattr(self._transformer, _INJECTED):
            delattr(self._transformer, _INJECTED)

    def count(self, layer: str) -> None:
        """Note that a layer has run."""
        self._run.calls[layer] += 1

    def count_all(self) -> None:
        """Note that each layer has run in a recorded forward pass, where no code of it runs."""
        for module in self._modules:
            layer = _layer(module)
            self._run.calls[layer.name] += layer.calls_a_run

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leave the runs of this thread in a context uncounted, complete or not."""
        before = Counter(self._run.calls)
        try:
            yield
        finally:
            self._run.calls = before

    def forget(self) -> None:
        """Forget the runs of this thread since the last check, after one that broke off."""
        self._run.calls.clear()

    def __enter__(self) -> Injection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


def inject(model: nn.Module, tau: Any, *, tau_bias: str = "divided") -> Injection:
    """Apply a temperature policy to a model's attention, and check it in every layer.

    Args:
        model: a `SentenceTransformer`, a `PreTrainedModel`, or a module that contains one.
        tau: a temperature in (0, ∞); or a policy: `{"query": 0.8, "document": 1.0}`,
            `{"layers": {0: 1.0, 6: 0.8}}`, `{"length": {0: 1.0, 256: 0.9}}`,
            `{"length": "logn"}`, `{"heads": "tuned.json"}`, or an object of
            `lcbench.tempscale.policy`.
        tau_bias: `divided` (a position bias is divided along with the logits) or `kept`.

    Returns:
        A handle with `.remove()`, `.role` and `.proof`, which is also a context manager. A policy
        by role follows `encode_query` and `encode_document`, which mteb and the evaluators of
        sentence-transformers call; before a plain `encode`, set the role: `injection.role =
        "query"`. The injection is in effect in this process only, so `encode` with a pool or
        several devices raises an error.

    Raises:
        InjectionError: the temperature cannot be applied in every attention layer (the message
            gives the reason), or the model already has an injection. The model is unchanged.
        RequestError: `tau` is not a policy, or names a layer or length that the model does not
            have.

    Examples:
        >>> model = SentenceTransformer("BAAI/bge-base-en-v1.5")
        >>> with lcbench.inject(model, 0.8):
        ...     embeddings = model.encode(texts)
        >>> injection = lcbench.inject(model, {"query": 0.8, "document": 1.0})
        >>> queries = model.encode_query(questions)
        >>> injection.remove()
    """
    if tau_bias not in ("divided", "kept"):
        raise RequestError(f"tau_bias={tau_bias} is neither divided nor kept.")
    if isinstance(tau, list | tuple):
        raise RequestError(
            f"tau={tau}: a model has one temperature at a time; lcbench.evaluate takes several."
        )
    if not isinstance(model, nn.Module):
        raise InjectionError(
            f"{type(model).__name__} is no loaded model: a SentenceTransformer, a PreTrainedModel "
            "or a module that holds one is. lcbench.evaluate takes names and folders."
        )
    policy = tau if isinstance(tau, Policy) else parse(tau, keeps_bias=tau_bias == "kept")
    return Injection(model, policy)


def _of_layer(taus: Tensor, layer: Layer) -> Tensor:
    """Return the temperatures of one layer: [texts, heads or 1]."""
    return taus[:, layer.index if taus.shape[1] > 1 else 0]


def _layer(module: nn.Module) -> Layer:
    layer: Layer = getattr(module, LAYER_ATTRIBUTE)
    return layer
