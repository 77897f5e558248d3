"""``grncli.evaluate`` and ``grncli.evaluate_reconstruction``: what samples and reconstructions are worth."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from grncli.calls.option_forms import (
    Place,
    Progress,
    Several,
    following,
    settled,
    takes_options,
    worker_count,
)
from grncli.calls.report_options import AskedReport
from grncli.calls.statistics_call import PictureOptions
from grncli.evaluation.feature_collection import NetworkOptions
from grncli.evaluation.generation import Generation, GenSettings, generation
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.pair_comparison import PairComparison
from grncli.evaluation.pairs import parse_rounds
from grncli.evaluation.reconstruction import ReconSettings, reconstruction
from grncli.evaluation.text_image_scores import TextImageOptions
from grncli.reporting.generation_report import generation_report
from grncli.reporting.reconstruction_report import reconstruction_report
from grncli.runtime.errors import UsageError
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.runtime.urls import reads_urls


class NetworkChoice(TypedDict, total=False):
    """Which feature network is used, and where its weights are found."""

    features: Place | None  # feature network: inception, i3d, a file or a tokenizer's run
    cache: Place | None  # folder of downloaded weights
    download: bool  # fetch published weights that are missing


class TextImageChoice(TypedDict, total=False):
    """Which network compares pictures with their prompts."""

    # Encoders of pictures and of their prompts: TorchScript or .pt2 files.
    text_image_network: tuple[Place, Place] | None
    text_image_tokenizer: Place | None  # the tokenizer.json of a text encoder that takes token ids


class ComparedOptions(NetworkChoice, PictureOptions, total=False):
    """The options that ``grn eval gen`` and ``grn eval recon`` share."""

    strict: bool  # stop at the first source that cannot be read
    tokenizer: Place | None  # run directory that decodes stores; of a reconstruction, that encodes media too
    metrics: Several | None  # "psnr,ssim" or ["psnr", "ssim"]; None: all that can be measured
    html: Place | None  # write the whole report as one page


class EvaluateOptions(TextImageChoice, ComparedOptions, total=False):
    """The options of ``grn eval gen``."""

    prompts: Place | None  # file of a prompt for each picture, for those that record none
    shows_pictures: bool  # keep some of the samples and the worst ones as `Generation.exhibits`, as a page does
    seed: int | None  # of the random subsets of KID


class ReconstructionOptions(ComparedOptions, total=False):
    """The options of ``grn eval recon``."""

    rounds: str | int | None  # "4", "1:8", "1:4,continuous"; None: as trained or stored
    reconstructions: Place | None  # reconstructions of the same files by others, to compare with
    compare: Place | None  # media that a store was made from
    budget: Several | None  # instead of a size: "0.06M", ... "2M", "WxH" or (W, H), an area
    lpips: Place | None  # folder of LPIPS weights
    sheet: Place | None  # PNG file for sources and reconstructions, with the worst ones


@takes_options(PictureReading, seed=0, download=False)
@reads_urls("samples", "reference")
def evaluate(
    samples: Place,
    reference: Place | None = None,
    *,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
    **options: Unpack[EvaluateOptions],
) -> Generation:
    """Compare samples with real pictures, or with their prompts, as ``grn eval gen`` does.

    Parameters
    ----------
    samples : media, a bit store, or an ``.npz`` of pictures or of statistics
    reference : real pictures to compare with, of the same kinds
    progress : called with (pictures done, pictures in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Unfinished`
    processes : those that measure together, each its share
    options : those of the command; `EvaluateOptions` says what each is

    Returns
    -------
    Generation
        ``value("fid")`` is a figure by the name of its metric; ``figures``, ``cost`` and ``warnings`` are all there
        is, with the protocol in ``samples`` and ``reference``.

    Raises
    ------
    Unfinished
        At ``max_time``; nothing is kept.
    GrnError
        `UsageError`, `MediaError`, `StoreError` or `CheckpointError`.
    """
    asked = AskedReport("evaluate", (samples,), {"reference": reference, **options}, drawn=True)
    values = settled(options)
    settings = GenSettings(
        reading=picture_reading(values),
        metrics=_metrics(values),
        networks=network_options(values),
        text_image=text_image_options(values),
        seed=values.get("seed", 0),
        shows_pictures=values.get("shows_pictures", False) or "html" in values,
    )
    theirs = None if reference is None else str(reference)
    measured = generation(str(samples), theirs, settings, processes=processes, monitor=following(progress, max_time))
    asked.write(lambda: generation_report(measured), is_main=processes.is_main)
    return measured


@takes_options(PictureReading, download=False)
@reads_urls("src")
def evaluate_reconstruction(
    src: Place,
    *,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
    **options: Unpack[ReconstructionOptions],
) -> PairComparison:
    """Measure pictures after the tokenizer (PSNR, SSIM, LPIPS, rFID), as ``grn eval recon`` does.

    Parameters
    ----------
    src : media; or a bit store with ``compare``
    progress : called with (pictures done, pictures in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Unfinished`
    processes : those that measure together, each its share
    options : those of the command; `ReconstructionOptions` says what each is

    Returns
    -------
    PairComparison
        A row for each number of rounds: ``rows[0].spreads["psnr"].mean``; and its pictures as ``sheet``.

    Raises
    ------
    Unfinished
        At ``max_time``; nothing is kept.
    GrnError
        `UsageError`, `MediaError`, `StoreError` or `CheckpointError`.
    """
    asked = AskedReport("evaluate_reconstruction", (src,), options, drawn=False)
    values = settled(options)
    settings = ReconSettings(
        reading=replace(picture_reading(values), budget=values.get("budget")),
        rounds=parse_rounds(str(values["rounds"])) if "rounds" in values else None,
        metrics=_metrics(values),
        networks=network_options(values),
        compare=_text(values, "compare"),
        reconstructions=_text(values, "reconstructions"),
        lpips=values.get("lpips"),
    )
    measured = reconstruction(str(src), settings, processes=processes, monitor=following(progress, max_time))
    asked.write(lambda: reconstruction_report(measured), is_main=processes.is_main)
    return measured


def text_image_options(values: Mapping[str, Any]) -> TextImageOptions | None:
    """Which network compares pictures with their prompts; UsageError for options without one."""
    tokenizer, prompts = values.get("text_image_tokenizer"), values.get("prompts")
    if "text_image_network" not in values:
        for name, value in {"--text-image-tokenizer": tokenizer, "--prompts": prompts}.items():
            if value is not None:
                raise UsageError(f"{name} {value} needs --text-image-network IMAGE TEXT, the encoders of both")
        return None
    image, text = map(Path, values["text_image_network"])
    return TextImageOptions(
        image=image, text=text, tokenizer=None if tokenizer is None else Path(tokenizer), prompts=prompts
    )


def picture_reading(values: Mapping[str, Any]) -> PictureReading:
    """Which pictures are measured, of settled options."""
    names = ("size", "frames", "fps", "limit", "sample", "batch", "device", "strict")
    given = {name: values[name] for name in names if name in values}
    return PictureReading(**given, workers=worker_count(values.get("workers")), tokenizer=_text(values, "tokenizer"))


def network_options(values: Mapping[str, Any]) -> NetworkOptions:
    """Which feature network is used, of settled options."""
    given = {name: values[name] for name in ("cache", "download") if name in values}
    return NetworkOptions(features=_text(values, "features"), **given)


def _metrics(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names from a comma-separated list; None for None."""
    text = values.get("metrics")
    if text is None:
        return None
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"--metrics {text!r}: expected names, such as psnr,ssim")
    return names


def _text(values: Mapping[str, Any], name: str) -> str | None:
    return str(values[name]) if name in values else None
