"""``grn encode-text``: prompts to features, and one part of a features store.

A store is a set of prompts: what it lacks is added, in the order of length and digest. Prompts of one length are
encoded together, and a commit falls between two batches, so a killed run that is resumed makes the same batches, hence
the same bytes, as one that was never killed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from grncli.prompt_encoding.prompt_plan import (
    EncodedPrompt,
    EncodeTextSettings,
    PromptPlan,
    make_prompt_plan,
    prompt_sum,
)
from grncli.runtime.errors import GrnError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.runtime.writer_status import reporting
from grncli.store.text_features import FeatureWriter, open_feature_part
from grncli.text.prompt_batches import length_batches
from grncli.text.text_encoder import TextEncoder

COMMIT_SECONDS = 5.0


@dataclass(frozen=True)
class PromptEncodingSummary:
    """What a run of ``encode_text`` added, and what the part holds."""

    out: Path  # the store
    distinct: int  # prompts asked for, in their final form, of all parts together
    prompts: int  # of them in this part
    made: int  # prompts added by this run
    tokens: int  # of these
    cut: int  # prompts that are longer than the encoder takes
    stored: int  # prompts of the part
    seconds: float


def encode_text(
    prompts: str,
    out: Path,
    open_encoder: Callable[[], TextEncoder],
    settings: EncodeTextSettings,
    *,
    monitor: Monitor | None = None,
) -> PromptEncodingSummary:
    """Encode the prompts that one part of the features store ``out`` lacks.

    Parameters
    ----------
    prompts : a file as `read_prompts` takes it, or ``-`` for standard input; or a bit store with captions
    open_encoder : gives the encoder, once everything else is checked
    monitor : is asked to stop between batches, and says which prompts are cut

    Raises
    ------
    Stopped
        If the monitor's stop asks for it; what was encoded is committed.
    UsageError, CheckpointError, StoreError
        With nothing lost that was committed.
    """
    monitor = monitor or Monitor()
    plan = make_prompt_plan(prompts, out, open_encoder, settings, monitor)
    began = time.monotonic()
    with open_feature_part(
        out, plan.store, settings.part, overwrite=settings.overwrite, resumes=plan.begins_with
    ) as part:
        missing = [plan.prompts[i] for i in part.lacking([prompt.digest for prompt in plan.prompts])]
        with reporting(part.directory, "encode-text", "prompts", monitor) as reported:
            _encode_missing(missing, plan, part, reported)
            part.finish()
        return PromptEncodingSummary(
            out=out,
            distinct=plan.distinct,
            prompts=len(plan.prompts),
            made=len(missing),
            tokens=sum(prompt.tokens for prompt in missing),
            cut=plan.cut,
            stored=part.samples,
            seconds=time.monotonic() - began,
        )


def _encode_missing(missing: Sequence[EncodedPrompt], plan: PromptPlan, part: FeatureWriter, monitor: Monitor) -> None:
    """Features of prompts into the part; Stopped where some are left."""
    before, total = part.samples, part.samples + len(missing)
    done, digest, committed = before, prompt_sum(part.digest, ()), time.monotonic()
    monitor.progress(done, total, "")
    for batch in length_batches([prompt.tokens for prompt in missing]):
        prompts = [missing[i] for i in batch]
        _encode_batch(prompts, plan.encoder, part)
        done += len(prompts)
        digest = prompt_sum(digest, (prompt.digest for prompt in prompts))
        if time.monotonic() - committed >= COMMIT_SECONDS:
            part.commit(done, digest, total)
            committed = time.monotonic()
        monitor.progress(done, total, "")
        if done < total and monitor.stop_reason:
            break
    if missing or not part.complete:
        part.commit(done, digest, total)
    if done < total:
        raise Stopped(f"{monitor.stop_reason}: stopped after {done - before} of {total - before} prompts, all saved")


def _encode_batch(prompts: Sequence[EncodedPrompt], encoder: TextEncoder, part: FeatureWriter) -> None:
    texts = [prompt.text for prompt in prompts]
    features = torch.stack(encoder.encode(encoder.tokenize(texts)))
    try:
        part.append(features, texts, [prompt.digest for prompt in prompts])
    except ValueError as error:
        name = encoder.identity["name"]
        raise GrnError(f"{name}: {error} for the prompt {texts[0]!r}; check the encoder's files") from None
