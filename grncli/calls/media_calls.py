"""``grncli.tokenize`` and ``grncli.decode``: media to bits, and back."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from grncli.calls.option_forms import (
    Place,
    Progress,
    Several,
    check_dtype,
    following,
    settled,
    source_arguments,
    takes_options,
    worker_count,
)
from grncli.decoding import store_decoding
from grncli.decoding.output_form import parse_output_form
from grncli.decoding.store_decoding import DecodeSettings, DecodingSummary
from grncli.media.listing.listing_cache import FOLDER
from grncli.media.listing.manifest_rows import parse_columns
from grncli.runtime.cache_folder import default_cache
from grncli.runtime.errors import UsageError
from grncli.runtime.urls import located, reads_urls
from grncli.tokenizing import tokenizing_stage
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import TokenizingSummary

Bounds = tuple[int | None, int | None, int | None]


class TokenizeOptions(TypedDict, total=False):
    """The options of ``grn tokenize``; None is the default."""

    size: Several | None  # 256: square by the ADM centre crop; "HxW" or (H, W): cover and crop; "native": the default
    budget: Several | None  # "0.06M", ... "2M", "WxH" or (W, H): an area, at the nearest of 15 aspect ratios
    frames: int | None  # of each window of a clip, 1 + 4n; None: whole clips
    fps: float | None  # resample clips in time to so many frames a second
    clips: Literal["all", "first"] | int | None  # windows of each clip
    labels: (
        Place | None
    )  # where the class is: "none", "dirs", "dirs:N", "cls", "json", "json:FIELD", "manifest" or a file
    class_names: Place | None  # file of class names, one a line, in the order of their numbers
    flip: bool  # store the mirrored picture as well
    rounds: int | None  # bits a feature, 1 to 8; None: the tokenizer's
    batch: int | None  # samples that go through the network at once; None: by their size
    workers: int | None  # decoding processes; None: half the cores, at most 8
    device: object  # "auto", "cpu", "cuda", "cuda:1", "mps", or a torch.device
    dtype: str | None  # number format of the arithmetic: "float32", the default, or "bfloat16"
    part: str | tuple[int, int] | None  # "i/n" or (i, n): part i of n, from 0; "auto": that of this process
    limit: int | None  # only the first N sources
    sample: int | None  # only N sources, drawn by a hash of their names
    strict: bool  # stop at the first source that cannot be read
    retry_failed: bool  # try failed sources again
    overwrite: bool  # replace an existing store
    add: bool  # add what is new, and keep the samples of sources that are listed no longer or have changed
    captions: bool  # take those of a manifest and of files beside the media
    prefix_keys: bool  # begin each key with the name of its SRC or shard
    null: bool  # paths of lists and standard input end with a zero byte
    comments: bool  # lines of lists that begin with # are no paths
    columns: str | Mapping[str, str] | None  # of a manifest: "path=file,caption=text", or {"path": "file"}
    outside: bool  # paths of a manifest may leave its folder


class DecodeOptions(TypedDict, total=False):
    """The options of ``grn decode``; None is the default."""

    rounds: int | None  # decode the first m rounds only
    select: str | int | slice | None  # samples: "A:B", "A:B:S" or a slice; or the number of one
    sheet: Place | None  # PNG file for a contact sheet
    compare: Place | None  # sources to measure the PSNR against, and to show on the sheet
    batch: int | None  # samples that go through the network at once; None: by their size
    device: object  # "auto", "cpu", "cuda", "cuda:1", "mps", or a torch.device
    dtype: str | None  # number format of the arithmetic: "float32", the default, or "bfloat16"
    overwrite: bool  # replace what was decoded from other bits, or in another way
    format: str | None  # "png", "jpg" or "webp": a file each; "webdataset", also "webdataset:jpg": tar shards
    quality: int | None  # of jpg and webp, 1 to 100; None: 95
    shard_size: int | None  # samples of a shard; None: 1000


@takes_options(TokenizeSettings, clips="all")
def tokenize(
    src: Place | Sequence[Place],
    out: Place,
    *,
    tokenizer: Place,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Unpack[TokenizeOptions],
) -> TokenizingSummary:
    """Encode images and clips into a bit store, as ``grn tokenize`` does.

    A complete store is left alone, new sources are added to it; an interrupted one is resumed.

    Parameters
    ----------
    src : a file, a directory, a ``.tar`` or ``.zip`` (also ``archive.zip/folder``), ``shards-{000..127}.tar``, a text
        file of paths, or a manifest; or several of them
    out : bit store to make, or to resume
    tokenizer : run directory
    progress : called with (sources done, sources in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`, everything saved
    options : those of the command; `TokenizeOptions` says what each is

    Returns
    -------
    TokenizingSummary
        Samples and sources of the store, those made now, and those that could not be read.

    Raises
    ------
    Stopped
        At ``max_time``; what was encoded is committed, and the same call resumes.
    GrnError
        `UsageError`, `MediaError`, `CheckpointError` or `StoreError`, with nothing lost that was committed.
    """
    settings = tokenize_settings(options)
    return tokenizing_stage.tokenize(
        source_arguments(src), Path(out), str(tokenizer), settings, monitor=following(progress, max_time)
    )


def tokenize_settings(options: TokenizeOptions) -> TokenizeSettings:
    """Options as the stage takes them; UsageError for invalid ones."""
    check_dtype(options.get("dtype"), "bits")
    values = settled(options) | {"workers": worker_count(options.get("workers"))}
    if columns := options.get("columns"):
        values["columns"] = parse_columns(columns)
    values["clips"] = parse_clips(values.get("clips", "all"))
    return TokenizeSettings(**values, listing_cache=default_cache() / FOLDER)


@takes_options(DecodeSettings, select=":", format="png")
@reads_urls("store")
def decode(
    store: Place,
    out: Place,
    *,
    tokenizer: Place,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Unpack[DecodeOptions],
) -> DecodingSummary:
    """Decode a bit store into pictures and MP4 clips, or shards of them, as ``grn decode`` does.

    Parameters
    ----------
    store : bit store
    out : folder to make, or to resume, with folders like those of the sources
    tokenizer : run directory of the tokenizer that made the store
    progress : called with (samples done, samples in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`
    options : those of the command; `DecodeOptions` says what each is

    Returns
    -------
    DecodingSummary
        Files written now and before, and with ``compare`` the PSNR of each sample: ``quality.means()``.

    Raises
    ------
    Stopped
        At ``max_time``; files written so far are whole, and the same call resumes.
    GrnError
        `UsageError`, `StoreMismatch`, `StoreError` or `CheckpointError`.
    """
    return store_decoding.decode(
        located(store), Path(out), str(tokenizer), decode_settings(options), monitor=following(progress, max_time)
    )


def decode_settings(options: DecodeOptions) -> DecodeSettings:
    """Options as the stage takes them; UsageError for invalid ones."""
    check_dtype(options.get("dtype"), "pixels")
    values = settled(options) | {"select": parse_select(options.get("select"))}
    if (compare := values.get("compare")) is not None:
        values["compare"] = str(compare)
    form = parse_output_form(values.pop("format", "png"), values.pop("quality", None), values.pop("shard_size", None))
    return DecodeSettings(**values, form=form)


def parse_clips(clips: str | int) -> int | None:
    """``all`` as None, ``first`` as 1, or a number above 0."""
    text = str(clips)
    if text in ("all", "first"):
        return None if text == "all" else 1
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--clips {text}: expected all, first or a number above 0")
    return int(text)


def parse_select(select: str | int | slice | None) -> Bounds:
    """``A:B`` or ``A:B:S`` as the arguments of a slice, a lone number as that one sample; UsageError otherwise."""
    if select is None:
        return None, None, None
    text = ":".join("" if n is None else str(n) for n in _bounds(select)) if isinstance(select, slice) else str(select)
    if re.fullmatch(r"-?\d+", text):
        return int(text), int(text) + 1 or None, None
    match = re.fullmatch(r"(-?\d+)?:(-?\d+)?(?::([1-9]\d*)?)?", text)
    if not match:
        raise UsageError(f"--select {text}: expected a range of samples such as 0:16")
    start, end, step = (None if number is None else int(number) for number in match.groups())
    return start, end, step


def _bounds(chosen: slice) -> Bounds:
    return chosen.start, chosen.stop, chosen.step
