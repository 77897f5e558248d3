"""What ``grn encode-text`` would take: some batches of prompts are encoded, and their features dropped."""

import random
from collections.abc import Callable
from pathlib import Path

import torch

from grncli.costs.run_costs import DiskNeed, RunCosts
from grncli.costs.trials import Clock, MemoryWatch
from grncli.machine.system_limits import disk
from grncli.prompt_encoding.prompt_plan import EncodeTextSettings, make_prompt_plan
from grncli.runtime.monitor import Monitor
from grncli.store.feature_settings import FeatureSchema
from grncli.store.text_features import open_features
from grncli.text.prompt_batches import length_batches
from grncli.text.text_encoder import TextEncoder


def text_costs(
    prompts: str,
    out: Path,
    open_encoder: Callable[[], TextEncoder],
    settings: EncodeTextSettings,
    *,
    device: torch.device,
    monitor: Monitor | None = None,
) -> RunCosts:
    """What of the prompts a part of ``out`` lacks, and takes; ``out`` is not touched.

    Parameters
    ----------
    device : that the encoder computes on

    Raises
    ------
    GrnError
        As the run itself, before the first prompt.
    """
    monitor = monitor or Monitor()
    watch = MemoryWatch(device)
    plan = make_prompt_plan(prompts, out, open_encoder, settings, monitor)
    missing = list(plan.prompts)
    if out.exists() and not settings.overwrite:
        there = open_features(out)
        missing = [prompt for prompt in missing if prompt.digest not in there]
    clock, batches = Clock("tokens"), list(length_batches([prompt.tokens for prompt in missing]))
    random.Random(0).shuffle(batches)
    for batch in batches:
        texts = [missing[i].text for i in batch]
        plan.encoder.encode(plan.encoder.tokenize(texts))[0].sum().item()  # waits for a GPU
        clock.mark(sum(missing[i].tokens for i in batch))
        if clock.is_over or monitor.stop_reason:
            break
    tokens, rate, space = sum(prompt.tokens for prompt in missing), clock.rate(), disk(out)
    schema = FeatureSchema(plan.store)
    rows = {
        length: [layout.row_bytes for layout in schema.arrays(str(length))] for length in {p.tokens for p in missing}
    }
    return RunCosts(
        command="encode-text",
        counts={"prompts": len(missing), "tokens": tokens},
        seconds=0.0 if not missing else None if rate is None else rate.seconds_for(tokens),
        rates=[] if rate is None else [rate],
        memory=watch.use(processes=settings.parts),
        disk=DiskNeed(
            written=sum(sum(rows[p.tokens]) + len(p.text.encode()) for p in missing), free=space.free, place=space.path
        ),
    )
