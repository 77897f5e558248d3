"""``grn sample``: refine random bits into samples."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import (
    format_seconds,
    guarded,
    monitored,
    parse_part,
    print_json,
    say,
    works_alone,
)
from grncli.cli.reports import check_file
from grncli.cli.terminal import histogram, screen_width

MOST = 10_000_000  # samples of a class, or steps; more is a typing error


@guarded
def sample(
    run: Annotated[Path, Argument(metavar="RUN", help="Run directory of the generator.", show_default=False)],
    out: Annotated[
        Path,
        Argument(metavar="OUT", help="OUT.zarr for bits; else a folder for PNG and MP4.", show_default=False),
    ],
    tokenizer: Annotated[
        str | None, Option(metavar="RUN2", help="Tokenizer that turns bits into pictures; not needed for OUT.zarr.")
    ] = None,
    classes: options.Classes = "all",
    prompts: Annotated[
        Path | None,
        Option(metavar="FILE", help="Prompts that name a class each: GenEval's or VBench's JSON, or plain lines."),
    ] = None,
    per_class: Annotated[
        int,
        Option(
            metavar="N",
            min=1,
            max=MOST,
            help="Samples of each class or prompt, or in all for a generator without classes.",
        ),
    ] = 8,
    grid: Annotated[
        str | None, Option(metavar="TxHxW", help="Tokens of a sample; default: the most frequent of training.")
    ] = None,
    steps: Annotated[
        int, Option(metavar="N", min=1, max=MOST, help="Refinement steps; with complexity, the pace of the warm-up.")
    ] = 50,
    schedule: Annotated[
        Literal["linear", "cosine", "complexity"],
        Option(help="How the selection ratio grows; complexity gives each sample steps by its entropy."),
    ] = "linear",
    k: Annotated[float | None, Option("--k", help="Steps per unit of entropy; default: fitted before, or 600.")] = None,
    b: Annotated[float | None, Option("--b", help="Steps at entropy 0; default: fitted before, or -547.")] = None,
    min_steps: Annotated[int | None, Option(metavar="N", min=1, help="Fewest steps of a sample; default: 20.")] = None,
    max_steps: Annotated[int | None, Option(metavar="N", min=1, help="Most steps of a sample; default: 50.")] = None,
    warmup_steps: Annotated[
        int | None, Option(metavar="N", min=0, help="Steps before the entropy decides; default: 5.")
    ] = None,
    target_steps: Annotated[
        float | None, Option(metavar="MEAN", help="Fit b (and k, unless given) so that samples take this many steps.")
    ] = None,
    guidance: Annotated[
        float | None,
        Option(metavar="SCALE", help="Scale of classifier-free guidance, 1 for none; default: 2.35."),
    ] = None,
    guidance_interval: Annotated[
        str | None,
        Option(metavar="LOW:HIGH", help="Ratios with guidance, LOW < 0 turns it up gradually; default: 0.44:1."),
    ] = None,
    temperature: Annotated[float, Option(metavar="TAU", help="Divides the logits.")] = 1.31,
    adapt_temperature: Annotated[
        bool, Option("--adapt-temperature", help="Lower it for samples of few steps, as the release does.")
    ] = False,
    select: Annotated[
        Literal["random", "confidence", "mask"],
        Option(help="random (the paper), confidence (Appendix E.2), mask: accepted tokens stay fixed."),
    ] = "random",
    init: Annotated[
        Path | None, Option(metavar="STORE", help="Start from these samples; --keep selects what of them stays.")
    ] = None,
    keep: Annotated[
        str | None,
        Option(metavar="MASK.png|first-frame|SHARE", help="White pixels, the first frame, or a share of all bits."),
    ] = None,
    weights: options.Weights = "ema",
    seed: options.Seed = 0,
    batch: options.Batch = None,
    part: options.Part = "0/1",
    sheet: Annotated[Path | None, Option(metavar="PNG", help="Write a contact sheet, a row for each class.")] = None,
    film: Annotated[
        Path | None,
        Option(metavar="MP4", help="Write a film of the refinement of the first samples, and a PNG beside it."),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    max_time: options.MaxTime = None,
    overwrite: Annotated[bool, options.overwrite("Replace samples made with other settings.")] = False,
    json: options.Json = False,
) -> None:
    """Sample from a generator: bits, or pictures and clips."""
    number, parts = parse_part(part)
    works_alone(part)
    for path in (sheet, film):
        if path is not None:
            check_file(path)
    with monitored("sample", "samples", max_time) as monitor:
        from grncli.runtime.devices import pick_device
        from grncli.sampling.settings import SampleOptions
        from grncli.sampling.stage import sample

        options = SampleOptions(
            classes=classes,
            prompts=prompts,
            grid=grid,
            weights=weights,
            schedule=schedule,
            steps=steps,
            k=k,
            b=b,
            min_steps=min_steps,
            max_steps=max_steps,
            warmup_steps=warmup_steps,
            target_steps=target_steps,
            guidance=guidance,
            guidance_interval=guidance_interval,
            temperature=temperature,
            adapt_temperature=adapt_temperature,
            select=select,
            seed=seed,
            init=init,
            keep=keep,
            per_class=per_class,
            tokenizer=tokenizer,
            batch=batch,
            device=str(pick_device(device)),
            dtype=dtype,
            part=number,
            parts=parts,
            sheet=sheet,
            film=film,
            overwrite=overwrite,
        )
        summary = sample(run, out, options, monitor)
    if json:
        print_json(
            {
                "out": str(out),
                "samples": summary.samples,
                "made": summary.made,
                "steps": {str(count): samples for count, samples in summary.steps.items()},
                "nfe": summary.nfe,
                "entropy": summary.mean_entropy,
                "seconds": summary.seconds,
            }
        )
    elif len(summary.steps) > 1:
        for line in histogram(summary.steps, screen_width()):
            print(line)
    if not summary.samples:
        say(f"{out}: there is no sample, as none falls to part {part}")
        return
    nfe = summary.nfe / summary.samples
    mean = sum(count * samples for count, samples in summary.steps.items()) / summary.samples
    new = f"{summary.made} samples made in {format_seconds(summary.seconds)}"
    say(
        f"{out}: {new if summary.made else 'all samples were there'}; {summary.samples} samples, {mean:.1f} steps and "
        f"NFE {nfe:.1f} each, entropy {summary.mean_entropy:.4f}"
    )
    for path in summary.written:
        say(f"{path}: written")
