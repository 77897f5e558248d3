"""``grn sample`` repeated: what has all its samples and files is told from hashes, and no network is loaded."""

from pathlib import Path

from grncli.runtime.monitor import Monitor
from grncli.sampling.plan import SamplingPlan, make_plan, store_of
from grncli.sampling.sample_store import StoredSamples, open_earlier
from grncli.sampling.settings import SampleOptions


def finished_plan(run: Path, out: Path, options: SampleOptions, monitor: Monitor) -> SamplingPlan | None:
    """The plan of a part in which nothing is left to compute, with networks without weights; None for any other.

    Raises
    ------
    UsageError, StoreMismatch, StoreError, CheckpointError
        As `make_plan`: what was made with other settings or weights is refused all the same.
    """
    if options.overwrite or any(each is not None for each in (options.sheet, options.film, options.target_steps)):
        return None
    earlier = open_earlier(store_of(out), overwrite=False, parts=options.parts)
    part = None if earlier is None or options.part >= len(earlier.parts) else earlier.parts[options.part]
    if part is None or not part.complete:
        return None
    plan = make_plan(run, out, options, monitor=monitor, computes=False)
    numbers = plan.numbers()
    if len(numbers) > part.samples:
        return None
    pictures, own = plan.pictures, frozenset(numbers)
    if pictures is not None and any(pictures.lacking(StoredSamples.read(plan.store), own)):
        return None
    return plan
