"""``grncli.encode_text``: prompts to a store of text features."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import torch

from grncli.calls.option_forms import Place, Progress, check_dtype, following, settled, takes_options
from grncli.prompt_encoding import prompt_stage
from grncli.prompt_encoding.prompt_plan import EncodeTextSettings
from grncli.prompt_encoding.prompt_stage import PromptEncodingSummary
from grncli.runtime.urls import reads_urls
from grncli.text.encoders import load_text_encoder
from grncli.text.text_encoder import TextEncoder


class EncodeTextOptions(TypedDict, total=False):
    """The options of ``grn encode-text``; None is the default."""

    recipe: Place | None  # run or recipe of a generator whose templates are applied
    task: Literal["image", "clip", "first-frame"] | None  # which template; None: image, for captions what they are of
    device: object  # "auto", "cpu", "cuda", "cuda:1", "mps", or a torch.device
    dtype: str | None  # number format of the arithmetic: "float32", the default, or "bfloat16"
    part: str | tuple[int, int] | None  # "i/n" or (i, n): part i of n, from 0; "auto": that of this process
    overwrite: bool  # replace an existing store


@takes_options(EncodeTextSettings)
@reads_urls("prompts")
def encode_text(
    prompts: Place,
    out: Place,
    *,
    text_encoder: Place,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Unpack[EncodeTextOptions],
) -> PromptEncodingSummary:
    """Encode prompts into a store of text features, as ``grn encode-text`` does.

    Each distinct prompt is encoded once, and the empty one, which guidance needs; what the store has is left alone.

    Parameters
    ----------
    prompts : a file with one prompt a line, GenEval's JSON lines or VBench's JSON; or a bit store, for its captions
    out : features store to make, resume or add to
    text_encoder : folder of a text encoder with its tokenizer, or ``minilm``
    progress : called with (prompts done, prompts in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`, everything saved
    options : those of the command; `EncodeTextOptions` says what each is

    Returns
    -------
    PromptEncodingSummary
        Prompts asked for, those encoded now, and those that the store holds.

    Raises
    ------
    Stopped
        At ``max_time``; what was encoded is committed, and the same call resumes.
    GrnError
        `UsageError`, `CheckpointError` or `StoreError`, with nothing lost that was committed.
    """
    settings, _, open_encoder = encoding_settings(text_encoder, options)
    return prompt_stage.encode_text(
        str(prompts), Path(out), open_encoder, settings, monitor=following(progress, max_time)
    )


def encoding_settings(
    text_encoder: Place, options: EncodeTextOptions
) -> tuple[EncodeTextSettings, torch.device, Callable[[], TextEncoder]]:
    """Options as the stage takes them, where it computes, and what opens the encoder; UsageError for invalid ones."""
    check_dtype(options.get("dtype"), "features")
    values = settled(options)
    device = torch.device(values.pop("device"))
    settings = EncodeTextSettings(**values)
    return settings, device, partial(load_text_encoder, text_encoder, device, getattr(torch, settings.dtype))
