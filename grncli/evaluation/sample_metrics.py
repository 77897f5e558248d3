"""The figures that compare samples with a reference or with their prompts, by the names of ``--metrics``."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from grncli.evaluation.text_image_scores import TextImageScore
from grncli.metrics.distributions import NEIGHBOURS, kid, precision, recall
from grncli.metrics.feature_files import FeatureFile
from grncli.metrics.feature_networks import FRECHET, PUBLISHED
from grncli.metrics.frechet import frechet_distance
from grncli.metrics.statistics_files import Distribution
from grncli.runtime.errors import UsageError
from grncli.runtime.jsonfiles import or_null

LABELS = {
    "fid": "FID",
    "fvd": "FVD",
    "fd": "Fréchet distance",
    "is": "Inception Score",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "class-accuracy": "class accuracy",
    "text-image": "text-image score",
}
OTHERWISE = {"is": "class score", "kid": "kernel distance"}  # what these are called without Inception
RENAMED = {"agreement": "class-accuracy"}
DISTANCES = ("fid", "fvd", "fd")
FROM_FEATURES = frozenset({"kid", "precision", "recall"})
FROM_CLASSES = frozenset({"is", "class-accuracy"})
TEXT_IMAGE = "text-image"
WITHOUT_REFERENCE = FROM_CLASSES | {TEXT_IMAGE}


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One number, and how it was computed."""

    metric: str
    label: str
    """The metric's name; those that are defined by Inception are called otherwise in the features of others."""
    value: float
    deviation: float | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not defined."""
        return {
            "metric": self.metric,
            "value": or_null(self.value),
            **({} if self.deviation is None else {"deviation": or_null(self.deviation)}),
            **({"detail": self.detail} if self.detail else {}),
        }


def distance_name(*sides: Distribution) -> str:
    """What the Fréchet distance is called: ``fid`` and ``fvd`` only for the networks that define them, else ``fd``."""
    seen_by = [side.about.get("network", {}).get("sha256") for side in sides]
    known = {file.sha256: FRECHET[name] for name, files in PUBLISHED.items() for file in files}
    return next((known[sha256] for sha256 in seen_by if sha256 in known), "fd")


def comparing_figure(
    metric: str, ours: Distribution, theirs: Distribution, *, seed: int = 0, device: str = "cpu"
) -> MetricValue:
    """A figure of samples and a reference; UsageError where these do not hold what it needs."""
    distance = distance_name(ours, theirs)
    figure = partial(MetricValue, metric=metric, label=_label(metric, distance))
    if metric in DISTANCES:
        check_distance(metric, distance)
        return figure(value=frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance))
    samples, real = single_features(metric, ours), single_features(metric, theirs)
    if metric == "kid":
        mean, deviation, size = kid(samples, real, seed=seed)
        return figure(value=mean, deviation=deviation, detail=f"100 subsets of {size}")
    sizes = f"{NEIGHBOURS} neighbours, {{}} features within {{}}"
    if metric == "precision":
        return figure(value=precision(samples, real, device=device), detail=sizes.format(len(samples), len(real)))
    return figure(value=recall(samples, real, device=device), detail=sizes.format(len(real), len(samples)))


def class_figure(metric: str, samples: Distribution) -> MetricValue:
    """A figure of the classes that the network sees in samples; UsageError where it sees none."""
    figure = partial(MetricValue, metric=metric, label=_label(metric, distance_name(samples)))
    if metric == "is":
        if samples.scores is None:
            raise UsageError(f"--metrics is: {samples.name} holds no class probabilities, give the pictures themselves")
        mean, deviation, splits = samples.scores.score()
        return figure(value=mean, deviation=deviation, detail=f"{splits} splits")
    if samples.class_accuracy is None:
        raise UsageError(
            f"--metrics class-accuracy: {samples.name} and the network share no names of classes; expected folders "
            "named as the classes that the network's file lists"
        )
    return figure(value=samples.class_accuracy, detail="by the names in the network's file")


def text_image_figure(score: TextImageScore) -> MetricValue:
    """The mean over samples of how well they show their prompts."""
    detail = f"{score.samples} samples of {score.prompts} prompts, 100 max(cos, 0)"
    return MetricValue(
        metric=TEXT_IMAGE, label=LABELS[TEXT_IMAGE], value=score.mean, deviation=score.deviation, detail=detail
    )


def _label(metric: str, distance: str) -> str:
    return OTHERWISE.get(metric, LABELS[metric]) if distance == "fd" else LABELS[metric]


def check_distance(metric: str, distance: str) -> None:
    """Refuse a named distance of another network's features."""
    if metric not in ("fd", distance):
        raise UsageError(
            f"--metrics {metric}: the features are of another network than {metric} is defined by; "
            "expected fd, or --features with the right one"
        )


def single_features(metric: str, side: Distribution) -> FeatureFile:
    """The feature vectors one by one; UsageError where a statistics file lacks them."""
    if side.features is None:
        raise UsageError(
            f"--metrics {metric}: {side.name} holds no single features; make it with grn eval stats "
            "--keep-features, or give the pictures themselves"
        )
    return side.features
