"""The policy `two_stage`: another policy's actions and predicted RGB, with depth from an estimator on that RGB.

In: requests, which the inner policy answers. Out: its replies, whose predictions have estimated depth.
Read next: `estimators.py` and `alignment.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from baselines.two_stage.alignment import ALIGNMENTS, scale_of
from baselines.two_stage.estimators import DA3_MODEL, DepthEstimator, Estimate, find_estimator
from evalkit.contracts.env import Finding, GlancedPlugin
from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.contracts.limits import check_choice, check_device
from evalkit.contracts.overrides import apply_overrides, first_line, leaf_keys
from evalkit.contracts.plugins import load_policy, make_policy
from evalkit.contracts.policy import ExaminedPolicy, Policy, PolicyPlugin
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import Observation, PolicyReply, PolicyRequest, Prediction


@dataclass(frozen=True, kw_only=True)
class TwoStageConfig:
    """Settings of the policy.

    Attributes:
        inner: Name of the policy that acts and predicts RGB, or `module:attribute` of its plugin.
        inner_settings: Its settings as `field=value`, for example `["checkpoint=nano"]`.
        estimator: `da3` for Depth Anything 3, `plane` for a wall at distance 1 (a floor), or `module:function`.
        estimator_model: Model of the estimator: an id on the Hugging Face hub or a folder.
        alignment: `none` for estimators that give metres, `first_frame` for one scale per episode, `median` for one per
            request. Scales come from measured depth of observed frames, never of the future.
        device: Device of the estimator, for example `cuda`.
    """

    inner: str = "dreamzero"
    inner_settings: tuple[str, ...] = ()
    estimator: str = "da3"
    estimator_model: str = DA3_MODEL
    alignment: str = "median"
    device: str = "cpu"


class TwoStagePlugin:
    """The entry point `two_stage`; its import loads no framework.

    Args:
        bench: The bench of the plan; None if it is not known.
    """

    name = "two_stage"
    summary = "A policy that predicts RGB, and a depth estimator on its predicted frames (docs/baselines.md)"
    config_type = TwoStageConfig

    def __init__(self, bench: str | None = None) -> None:
        self._bench = bench

    def for_bench(self, bench: str) -> TwoStagePlugin:
        """Return the plugin whose inner policy is the one that a plan for this bench states."""
        return TwoStagePlugin(bench)

    def spec(self, config: TwoStageConfig) -> PolicySpec:
        """Return the inner policy's spec, with depth among its predictions.

        Raises:
            BadConfig: If the inner policy predicts no RGB, or the alignment does not fit the estimator.
        """
        estimator = self._estimator(config)
        spec = self._inner(config).spec(_inner_config(config.inner, tuple(config.inner_settings)))
        if "rgb" not in spec.predicts:
            raise BadConfig(f"policy.two_stage.inner={config.inner} predicts no RGB to estimate depth of.")
        states = ("proprio",) if "proprio" in spec.predicts else ()
        return replace(
            spec,
            policy_id=f"two_stage/{spec.policy_id}+{estimator.name}-{config.alignment}",
            predicts=("rgb", "depth", *states),  # type: ignore[arg-type]
        )

    def provenance(self, config: TwoStageConfig) -> dict[str, str]:
        """Return the inner policy's provenance, and how depth was made."""
        inner, settings = self._inner(config), _inner_config(config.inner, tuple(config.inner_settings))
        estimator = self._estimator(config)
        facts = dict(inner.provenance(settings))
        own = "depth" in inner.spec(settings).predicts
        return facts | {
            "depth": f"two-stage: {estimator.name}, alignment {ALIGNMENTS[config.alignment]}",
            "depth estimator": estimator.note,
            "inner policy": f"{config.inner}; " + ("its own depth is not used" if own else "it predicts no depth"),
        }

    def glance(self, config: TwoStageConfig) -> list[Finding]:
        """Return whether the estimator's package is installed, and what the inner policy says."""
        inner = self._inner(config)
        settings = _inner_config(config.inner, tuple(config.inner_settings))
        return [
            *self._estimator(config).findings,
            *(inner.glance(settings) if isinstance(inner, GlancedPlugin) else []),
        ]

    def examine(self, config: TwoStageConfig) -> list[Finding]:
        """Return what estimator and inner policy need."""
        inner = self._inner(config)
        settings = _inner_config(config.inner, tuple(config.inner_settings))
        return [
            *self._estimator(config).findings,
            *(inner.examine(settings) if isinstance(inner, ExaminedPolicy) else []),
        ]

    def make(self, config: TwoStageConfig) -> TwoStagePolicy:
        """Return the policy with both models in memory."""
        spec, estimator = self.spec(config), self._estimator(config)
        inner = make_policy(self._inner(config), _inner_config(config.inner, tuple(config.inner_settings)))
        return TwoStagePolicy(spec, inner, estimator.load(config.device), alignment=config.alignment)

    def codec(self, config: TwoStageConfig) -> Callable[[Prediction], Prediction]:
        """Return the round trip of the inner policy's codec, without depth: what is estimated has no codec.

        Raises:
            EvalkitError: If the inner policy offers no codec.
        """
        inner: Any = self._inner(config)
        if not hasattr(inner, "codec"):
            raise EvalkitError(f"the inner policy '{config.inner}' offers no codec")
        return _without_depth(inner.codec(_inner_config(config.inner, tuple(config.inner_settings))))

    def _inner(self, config: TwoStageConfig) -> PolicyPlugin:
        if config.inner == self.name:
            raise BadConfig("policy.two_stage.inner must be another policy than two_stage.")
        plugin = load_policy(config.inner)
        for_bench = getattr(plugin, "for_bench", None)
        return plugin if self._bench is None or for_bench is None else for_bench(self._bench)

    def _estimator(self, config: TwoStageConfig) -> DepthEstimator:
        check_choice("policy.two_stage.alignment", config.alignment, tuple(ALIGNMENTS))
        check_device("policy.two_stage.device", config.device)
        estimator = find_estimator(config.estimator, config.estimator_model)
        if config.alignment == "none" and not estimator.in_metres:
            raise BadConfig(
                f"policy.two_stage.alignment=none needs an estimator that gives metres; {estimator.name} "
                f"({estimator.note}) gives depth up to a scale: choose first_frame or median."
            )
        return estimator


class TwoStagePolicy:
    """The inner policy, and an estimator on its predicted frames."""

    def __init__(self, spec: PolicySpec, inner: Policy, estimate: Estimate, *, alignment: str) -> None:
        self.spec = spec
        self._inner, self._estimate, self._alignment = inner, estimate, alignment
        self._first_scales: dict[str, float] = {}
        inner_trip = getattr(inner, "round_trip", None)
        self.round_trip: Callable[[Prediction], Prediction] | None = inner_trip and _without_depth(inner_trip)

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode in the inner policy, and forget its scale."""
        self._first_scales.pop(episode_id, None)
        self._inner.reset(episode_id, env)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return the inner policy's replies; depth is estimated when their predictions are asked for.

        With alignment `first_frame`, the first request of an episode also estimates the depth of its observation.
        """
        if self._alignment == "first_frame":
            for request in requests:
                if request.chunk_idx == 0:
                    self._first_scales[request.episode_id] = self._fitted(request.observation)
        replies = self._inner.infer(requests)
        return [self._with_depth(*pair) for pair in zip(requests, replies, strict=True)]

    def _with_depth(self, request: PolicyRequest, reply: PolicyReply) -> PolicyReply:
        if reply.prediction is None:
            return reply
        scale = self._first_scales.get(request.episode_id)
        if self._alignment == "first_frame" and scale is None:
            raise EvalkitError(f"Policy '{self.spec.policy_id}' was not asked at the first step of an episode.")
        return replace(reply, prediction=partial(self._completed, reply, request.observation, scale))

    def _completed(self, reply: PolicyReply, seen: Observation, scale: float | None) -> Prediction:
        """Return the inner prediction with the estimated depth of each of its frames."""
        assert reply.prediction is not None
        prediction = reply.prediction()
        if scale is None:
            scale = self._fitted(seen) if self._alignment == "median" and len(prediction.rgb) else 1.0
        depth = [np.float32(scale) * self._estimate(frame, seen.intrinsics) for frame in prediction.rgb]
        return replace(prediction, depth=np.stack(depth) if depth else np.zeros(prediction.rgb.shape[:4], np.float32))

    def _fitted(self, seen: Observation) -> float:
        """Return the scale of an observed moment.

        Raises:
            EvalkitError: If none can be fitted.
        """
        try:
            return scale_of(self._estimate(seen.rgb, seen.intrinsics), seen.depth)
        except ValueError as error:
            raise EvalkitError(
                f"Policy '{self.spec.policy_id}' cannot align its depth: {error}. Give an estimator in metres with "
                "policy.two_stage.alignment=none, or a bench with depth."
            ) from error


def _without_depth(round_trip: Callable[[Prediction], Prediction]) -> Callable[[Prediction], Prediction]:
    """Return the round trip of RGB and states alone."""
    return lambda future: replace(round_trip(replace(future, depth=None)), depth=None)


@lru_cache(maxsize=16)
def _inner_config(inner: str, settings: tuple[str, ...]) -> Any:
    """Return the inner policy's config with settings applied.

    Raises:
        UnknownName: If it has no such setting.
        BadConfig: For a value that does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    plugin = load_policy(inner)
    if not settings:
        return plugin.config_type()
    node: Any = OmegaConf.create({plugin.name: OmegaConf.structured(plugin.config_type)})
    OmegaConf.set_readonly(node[plugin.name], False)
    merged: Mapping[str, Any] = apply_overrides(
        node,
        [f"{plugin.name}.{setting}" for setting in settings],
        keys=list(leaf_keys(node)),
        see=f"evalkit list --policy {inner}",
        example="checkpoint=nano",
    )
    try:
        return OmegaConf.to_object(merged[plugin.name])
    except (OmegaConfBaseException, ValueError) as error:
        raise BadConfig(f"policy.two_stage.inner_settings cannot be used: {first_line(error)}.") from error
