"""How large samples are: in tokens, in pixels and frames, or as a pixel budget and an aspect ratio."""

from collections.abc import Mapping, Sequence

from grncli.media.budgets import Budget, parse_budget, parse_ratio, parse_sides
from grncli.models.transformer import Grid
from grncli.runs.generator_recipe import Bits
from grncli.runtime.errors import UsageError
from grncli.sampling.settings import SampleOptions
from grncli.store import grid_name, parse_grid


def choose_grid(text: str | None, trained: Mapping[str, int]) -> Grid:
    """The latent grid that is named, or the most frequent of training; UsageError when ``text`` is none."""
    name = text if text is not None else max(trained, key=lambda grid: trained[grid])
    grid = parse_grid(name)
    if grid is None:
        example = grid_name((1, 16, 16))
        raise UsageError(f"--grid {text}: expected tokens as TxHxW, such as {example}")
    return grid


def asked_grid(options: SampleOptions, bits: Bits) -> Grid:
    """The latent grid that the options ask for; what they leave open is that of the most frequent grid of training.

    Raises
    ------
    UsageError
        If two of them contradict each other, or one is no whole number of tokens.
    """
    _refuse_contradictions(options)
    usual = choose_grid(options.grid, bits.grids)
    frames = usual[0] if options.frames is None else _latent_frames(options.frames, bits.stride[0])
    if options.size is not None:
        return (frames, *_tokens_of_size(options.size, bits.stride))
    if options.budget is None and options.ratio is None:
        return (frames, *usual[1:])
    height, width = usual[1] * bits.stride[1], usual[2] * bits.stride[2]
    budget = Budget(height * width) if options.budget is None else parse_budget(options.budget)
    ratio = height / width if options.ratio is None else parse_ratio(options.ratio)
    if bits.stride[1] != bits.stride[2]:
        raise UsageError(
            f"--budget and --ratio: the tokens are {bits.stride[1]}x{bits.stride[2]} pixels, expected square ones; "
            "give --size or --grid"
        )
    return (frames, *budget.tokens(ratio, bits.stride[1]))


def describe_grid(grid: Grid, stride: Sequence[int]) -> str:
    """What samples of a grid are: ``clips of 81 frames of 480x848 pixels (21x30x53 tokens)``."""
    frames = 1 + (grid[0] - 1) * stride[0]
    kind = "pictures" if frames == 1 else f"clips of {frames} frames"
    return f"{kind} of {grid[1] * stride[1]}x{grid[2] * stride[2]} pixels ({grid_name(grid)} tokens)"


def _refuse_contradictions(options: SampleOptions) -> None:
    given = {name: value for name in ("grid", "size", "budget", "ratio", "frames") if (value := getattr(options, name))}
    for one, others in (("grid", ("size", "budget", "ratio", "frames")), ("size", ("budget", "ratio"))):
        other = next((name for name in others if one in given and name in given), None)
        if other is not None:
            raise UsageError(f"--{one} {given[one]} with --{other} {given[other]}: expected one of the two")


def _latent_frames(frames: int, stride: int) -> int:
    more, rest = divmod(frames - 1, stride)
    if rest:
        below = more * stride + 1
        raise UsageError(
            f"--frames {frames}: the tokenizer takes 1 + {stride}n frames, expected {below} or {below + stride}"
        )
    return more + 1


def _tokens_of_size(text: str, stride: tuple[int, int, int]) -> tuple[int, int]:
    sides = parse_sides(text)
    if sides is None:
        raise UsageError(f"--size {text}: expected HEIGHTxWIDTH in pixels, such as 480x848")
    if sides[0] % stride[1] or sides[1] % stride[2]:
        nearest = [max(1, round(side / pixels)) * pixels for side, pixels in zip(sides, stride[1:], strict=True)]
        raise UsageError(
            f"--size {text}: a token is {stride[1]}x{stride[2]} pixels, expected multiples of that, "
            f"such as {nearest[0]}x{nearest[1]}"
        )
    return sides[0] // stride[1], sides[1] // stride[2]
