"""What is slow on a machine, and why; each reason is a rule about what `examine` finds, and nothing is timed."""

from collections.abc import Iterator

from grncli.machine.computing_devices import ProcessorState
from grncli.machine.examination import Examination

LITTLE_MEMORY, LITTLE_DISK = 2 << 30, 5 << 30  # bytes


def slow_reasons(found: Examination) -> list[str]:
    """One sentence or two for each thing that makes work slow here, the most important first."""
    return [*_of_devices(found), *_of_processor(found.processor, only=len(found.devices) == 1), *_of_room(found)]


def _of_devices(found: Examination) -> Iterator[str]:
    if found.unused_gpu is not None:
        yield f"A GPU is here, but PyTorch cannot use it: {found.unused_gpu}."
    elif len(found.devices) == 1:
        yield "There is no GPU, so networks run on the processor: small ones train in minutes, the paper's do not."


def _of_processor(processor: ProcessorState, *, only: bool) -> Iterator[str]:
    """``only``: there is nothing else to compute on."""
    instructions = processor.instructions
    if instructions is None:
        yield "This PyTorch is too old to tell what the processor can do, so --dtype auto is float32: update it."
    elif only:
        yield from _of_instructions(instructions)
    allowed = min(processor.cores, processor.quota or processor.cores)
    if processor.threads > allowed:
        yield (
            f"PyTorch computes with {processor.threads} threads, but may keep only {allowed:g} cores busy, so that "
            f"threads wait for each other: set OMP_NUM_THREADS={max(1, int(allowed))}."
        )
    elif processor.threads < int(allowed) and processor.threads_set_by:
        yield f"PyTorch computes with {processor.threads} of {int(allowed)} cores, as {processor.threads_set_by} says."
    if processor.load is not None and processor.load > 0.5 * processor.cores:
        load = f"{processor.load:.1f} processes shared its {processor.cores} cores"
        yield f"The machine is busy: {load} in the last minute."


def _of_instructions(instructions: tuple[str, ...]) -> Iterator[str]:
    if not any("BF16" in name for name in instructions):
        yield (
            "The processor does not multiply bfloat16, so --dtype auto is float32; one that does encodes and decodes "
            "about twice as fast in bfloat16."
        )
    if "AVX2" in instructions and "AVX-512" not in instructions:
        yield "The processor has AVX2 but not AVX-512, whose products are up to twice as wide."


def _of_room(found: Examination) -> Iterator[str]:
    available = found.memory.available
    if available is not None and available < LITTLE_MEMORY:
        yield f"Only {available / 1e9:.1f} GB of memory are available: take smaller batches (--batch, data.batch)."
    for disk, what in ((found.folder, "stores and runs"), (found.temporary, "temporary files")):
        if disk.free < LITTLE_DISK:
            yield f"Only {disk.free / 1e9:.1f} GB are free for {what} in {disk.path}."
    if found.folder.is_remote:
        yield (
            f"{found.folder.path} lies on {found.folder.file_system}, a network file system: keep stores that are "
            "read at random in training on a local disk."
        )
    if found.checksums == "python":
        yield "google-crc32c has no compiled part here, so checksums of stores are slow: reinstall google-crc32c."
