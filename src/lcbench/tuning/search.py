"""Search temperatures by layer and length with Optuna, on pseudo-queries without labels.

Temperatures are chosen on some of the pairs and judged by the others: cross-validation. The first
trials (τ = 1, two constants, and points of a Sobol sequence) do not depend on any score, so that
all folds share them; the rest are proposed by Optuna's TPE sampler for each fold, from the scores
of its own pairs alone. The same is done with all pairs for the temperatures that are returned.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.estimates import Estimate, resampled, spread
from lcbench.tempscale.heads import HeadTemperatures, Matrix
from lcbench.tempscale.policy import BASELINE, ByHead, Policy
from lcbench.tuning.options import SearchOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.tempscale.policy import Role
    from lcbench.tuning.pairs import Pair

    Embed = Callable[[Policy, Sequence[str], Role], NDArray[np.float32]]
    Parameters = dict[str, float]

FEWEST_PAIRS = 30
"""With fewer, an interval says nothing."""

LOWEST, HIGHEST = 0.5, 1.25
"""Temperatures that are tried at the shortest length."""

SLOPES = (-0.25, 0.05)
"""Exponents that are tried: τ(n) = τ · (n / shortest length)^slope."""

# Adjacent layers share a temperature, so that few trials suffice.
_MOST_GROUPS = 6
_CONSTANTS = (0.9, 0.8)
# Share of the trials that do not depend on scores.
_SHARED = 2 / 3
_CUTOFF = 10
_DIGITS = 4
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Space:
    """The temperatures that are tried for a model.

    Attributes:
        layers: number of layers.
        heads: number of heads in each.
        lengths: shortest and longest length in tokens; empty: τ does not depend on length.
        by_head: whether each head has a temperature of its own.
    """

    layers: int
    heads: int
    lengths: tuple[int, ...]
    by_head: bool

    @property
    def names(self) -> list[list[str]]:
        """The parameter of each head in each layer."""
        groups = min(_MOST_GROUPS, self.layers)
        return [
            [
                f"tau_{layer}_{head}" if self.by_head else f"tau_{layer * groups // self.layers}"
                for head in range(self.heads)
            ]
            for layer in range(self.layers)
        ]

    @property
    def parameters(self) -> list[str]:
        """The names of all parameters but the slope."""
        return list(dict.fromkeys(name for layer in self.names for name in layer))

    def constant(self, tau: float) -> Parameters:
        """Return the parameters of a constant temperature."""
        return dict.fromkeys(self.parameters, tau) | ({"slope": 0.0} if self.lengths else {})

    def matrices(self, parameters: Parameters) -> tuple[Matrix, ...]:
        """Return the temperatures by length, layer and head."""

        def matrix(length: int) -> Matrix:
            factor = (length / self.lengths[0]) ** parameters["slope"] if self.lengths else 1.0
            return tuple(
                tuple(round(parameters[name] * factor, _DIGITS) for name in layer)
                for layer in self.names
            )

        return tuple(matrix(length) for length in self.lengths or (1,))

    def policy(self, parameters: Parameters) -> Policy:
        """Return the policy of a trial."""
        matrices = self.matrices(parameters)
        if {tau for one in matrices for layer in one for tau in layer} == {1.0}:
            return BASELINE
        if len(set(matrices)) == 1:
            return ByHead(HeadTemperatures("", None, matrices[:1]))
        return ByHead(HeadTemperatures("", None, matrices, self.lengths))


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        lengths: shortest and longest length; empty: τ does not depend on length.
        matrices: temperatures by layer and head at each of these; all 1 if no gain was found that
            holds on pairs that were held out.
        tried: the best temperatures on all pairs, whether they are taken or not.
        baseline: mean nDCG@10 of the pairs at τ = 1.
        gain: what temperatures that were chosen on the other folds add to it.
        pairs: number of pairs.
        trials: number of temperatures that were tried, over all folds.
    """

    lengths: tuple[int, ...]
    matrices: tuple[Matrix, ...]
    tried: tuple[Matrix, ...]
    baseline: float
    gain: Estimate
    pairs: int
    trials: int

    @property
    def helps(self) -> bool:
        """Whether the interval of the gain is above 0."""
        return self.gain.low > 0


def search(
    embed: Embed,
    pairs: Sequence[Pair],
    space: Space,
    options: SearchOptions,
    seed: int = 0,
    on_trial: Callable[[int, int], None] = lambda done, total: None,
) -> Searched:
    """Search the temperatures with which pseudo-queries find the rests of their texts best.

    Args:
        embed: returns the embeddings of texts of a role at a policy, of length 1: [texts,
            dimensions].
        pairs: queries and documents, of which each query has one.
        space: the temperatures to try.
        options: numbers of trials and folds.
        seed: of folds, trials, and bootstrap.
        on_trial: called after each trial with the numbers of trials done and of all.

    Raises:
        RequestError: Optuna is not installed, or there are too few pairs.
    """
    require_optuna()
    if len(pairs) < max(FEWEST_PAIRS, 2 * options.folds):
        raise RequestError(
            f"{len(pairs)} of the texts have a title or first sentence and at least 20 words "
            f"besides, and method=search needs {FEWEST_PAIRS}: take more or longer texts."
        )
    return _Search(embed, pairs, space, options, seed, on_trial).run()


def require_optuna() -> Any:
    """Return the module, set to report nothing by itself.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise RequestError(
            "method=search needs Optuna: pip install 'lcbench[tune]'; method=entropy does not."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def ndcg(similarities: NDArray[Any], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the nDCG@10 of queries that have one relevant document each: [queries].

    Args:
        similarities: [queries, documents]; a document as similar as the relevant one ranks higher.
        relevant: number of the relevant document of each query.
    """
    own = similarities[np.arange(len(relevant)), relevant]
    ranks = (similarities >= own[:, None]).sum(axis=1)
    return np.where(ranks <= _CUTOFF, 1 / np.log2(1 + ranks), 0.0)


class _Search:
    def __init__(
        self,
        embed: Embed,
        pairs: Sequence[Pair],
        space: Space,
        options: SearchOptions,
        seed: int,
        on_trial: Callable[[int, int], None],
    ) -> None:
        self._optuna = require_optuna()
        self._embed = embed
        self._pairs = pairs
        self._space = space
        self._options = options
        self._seed = seed
        self._on_trial = on_trial
        self._shared = max(1, round(_SHARED * options.trials))
        self._total = self._shared + (options.folds + 1) * (options.trials - self._shared)
        self._done = 0
        distributions = self._optuna.distributions
        self._distributions = {
            name: distributions.FloatDistribution(LOWEST, HIGHEST, log=True)
            for name in space.parameters
        }
        if space.lengths:
            self._distributions["slope"] = distributions.FloatDistribution(*SLOPES)

    def run(self) -> Searched:
        options, count = self._options, len(self._pairs)
        every = np.arange(count)
        # Parameters of each shared trial, with the similarities of all queries and documents.
        shared = []
        for one in self._starts():
            shared.append((one, self._similarities(one, every, every)))
            self._count()
        order = np.random.default_rng(self._seed).permutation(count)
        folds = np.array_split(order, options.folds)
        gains, baseline = np.zeros(count), ndcg(shared[0][1], every)
        for number, held_out in enumerate(folds):
            own = np.setdiff1d(every, held_out)
            best = self._best(shared, own, number)
            known = [found for one, found in shared if one == best]
            found = known[0][held_out] if known else self._similarities(best, held_out, every)
            gains[held_out] = ndcg(found, held_out) - baseline[held_out]
        best = self._best(shared, every, options.folds)
        drawn = resampled(count, _RESAMPLES, self._seed)
        gain = spread(drawn @ gains / drawn.sum(axis=1), count)
        tried = self._space.matrices(best)
        ones = self._space.matrices(self._space.constant(1.0))
        return Searched(
            self._space.lengths,
            tried if gain.low > 0 else ones,
            tried,
            float(baseline.mean()),
            gain,
            count,
            self._total,
        )

    def _starts(self) -> list[Parameters]:
        """Return the parameters of the trials that do not depend on scores, τ = 1 first."""
        found = [self._space.constant(tau) for tau in (1.0, *_CONSTANTS)][: self._shared]
        sampler = self._sampler("QMCSampler", self._seed, scramble=True)
        study = self._study(sampler, [(found[0], 0.0)])
        while len(found) < self._shared:
            trial = study.ask(self._distributions)
            found.append(dict(trial.params))
            study.tell(trial, 0.0)
        return found

    def _best(
        self,
        shared: Sequence[tuple[Parameters, NDArray[np.float32]]],
        own: NDArray[np.int64],
        number: int,
    ) -> Parameters:
        """Return the best parameters of the shared trials, and of others, by some of the pairs."""
        places = np.arange(len(own))
        tried = [
            (one, float(ndcg(found[np.ix_(own, own)], places).mean())) for one, found in shared
        ]
        sampler = self._sampler(
            "TPESampler", self._seed + number, multivariate=True, n_startup_trials=0
        )
        study = self._study(sampler, tried)
        for _ in range(self._options.trials - self._shared):
            trial = study.ask(self._distributions)
            found = self._similarities(dict(trial.params), own, own)
            study.tell(trial, float(ndcg(found, places).mean()))
            self._count()
        # The first of equal scores: τ = 1 where nothing is better.
        return dict(study.best_params)

    def _similarities(
        self, parameters: Parameters, queries: NDArray[np.int64], documents: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the cosines of queries and documents at the temperatures of a trial."""
        policy = self._space.policy(parameters)
        of_queries = self._embed(policy, [self._pairs[i].query for i in queries], "query")
        of_documents = self._embed(policy, [self._pairs[i].document for i in documents], "document")
        found: NDArray[np.float32] = of_queries @ of_documents.T
        return found

    def _count(self) -> None:
        self._done += 1
        self._on_trial(self._done, self._total)

    def _sampler(self, name: str, seed: int, **options: Any) -> Any:
        with warnings.catch_warnings():
            # Optuna warns that samplers or their options are experimental.
            warnings.simplefilter("ignore")
            return getattr(self._optuna.samplers, name)(seed=seed, **options)

    def _study(self, sampler: Any, known: Sequence[tuple[Parameters, float]]) -> Any:
        study = self._optuna.create_study(sampler=sampler, direction="maximize")
        for parameters, score in known:
            study.add_trial(
                self._optuna.trial.create_trial(
                    params=parameters, distributions=self._distributions, value=score
                )
            )
        return study
