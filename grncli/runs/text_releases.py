"""What goes with the released text-conditional generators and stands in no file (facts section 8).

The two releases have the same names and shapes of weights, and differ in how text attends: a wrong choice shifts every
logit by 0.08 to 0.38 without any error. So a file is known by its name, or the user says which release it is of. No
checksum of these files is published.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grncli.models.text_transformer import AttentionVariant
from grncli.runs.generator_recipe import Task
from grncli.runtime.errors import StoreMismatch, UsageError

UMT5_WIDTH = 4096
FPS = 16.0
STRIDE = (4, 16, 16)  # of the tokenizers
PICTURE, CLIP, SMALL_PICTURE = "1x64x64", "21x30x53", "1x16x16"  # 1024x1024, 81 frames of 480x848, 256x256

MAY_TOKENIZER = "HBQ_tokenizer_64dim_M4.ckpt"
JUNE_TOKENIZERS = (
    "HBQ_image_video_tokenizer_64dim_M4_20260618.ckpt",
    "HBQ_image_video_tokenizer_64dim_M4_20260626.ckpt",
)
TOKENIZERS = (MAY_TOKENIZER, *JUNE_TOKENIZERS)


@dataclass(frozen=True, kw_only=True)
class TextRelease:
    """The conventions of a release: how prompts are written, and how it is sampled by default.

    Both sample pictures at guidance 3.0 and temperature 1.1, clips at 4.0 and 1.0 (its README; a tool of June takes 3.0
    with a long negative prompt, which is not known here). ``. masterpiece, high quality.`` at the end of May's example
    of a clip is that prompt's own: May trains without prefix and suffix.
    """

    name: str
    sign: str  # what its files are called
    meaning: str  # of its attention
    cosine_end: float
    tokenizers: tuple[str, ...]
    image: Task = field(default_factory=lambda: Task(guidance=3.0, temperature=1.1))
    clip: Task = field(default_factory=lambda: Task(guidance=4.0, temperature=1.0))
    first_frame: Task = field(default_factory=lambda: Task(guidance=4.0, temperature=1.0))


QUALITY = " The quality is very high!"  # what June's captions of clips end in
RELEASES: Mapping[AttentionVariant, TextRelease] = {
    "text-only": TextRelease(
        name="May 2026",
        sign="GRN_T2I_2B.pth and GRN_T2V_2B.pth",
        meaning="text attends to text alone",
        cosine_end=0.999,
        tokenizers=(MAY_TOKENIZER,),
    ),
    "full": TextRelease(
        name="June 2026",
        sign="FSA in the name",
        meaning="all tokens attend to each other",
        cosine_end=0.95,
        tokenizers=JUNE_TOKENIZERS,
        image=Task(prefix="<T2I>", guidance=3.0, temperature=1.1),
        clip=Task(prefix="<T2V>", suffix=QUALITY, guidance=4.0, temperature=1.0),
        first_frame=Task(prefix="<I2V>", suffix=QUALITY, guidance=4.0, temperature=1.0),
    ),
}


@dataclass(frozen=True)
class KnownText:
    """What is known of a file: how its text attends, its tokenizers, and what it is sampled as by default."""

    attention: AttentionVariant
    tokenizers: tuple[str, ...]
    grid: str

    @property
    def release(self) -> TextRelease:
        """The release it is of, or whose conventions it follows."""
        return RELEASES[self.attention]


FILES = {
    r"GRN_T2I_2B\.pth": KnownText("text-only", (MAY_TOKENIZER,), PICTURE),
    r"GRN_T2V_2B\.pth": KnownText("text-only", (MAY_TOKENIZER,), CLIP),
    r"GRN_T2I_2B_FSA_137200\.pth": KnownText("full", JUNE_TOKENIZERS[:1], PICTURE),
    r"GRN_T2V_2B_FSA_sft3800_non_ema\.pth": KnownText("full", JUNE_TOKENIZERS[:1], CLIP),
    r"GRN_T2I_2B_FSA_251600\.pth": KnownText("full", JUNE_TOKENIZERS[1:], PICTURE),
    r"GRN_T2V_2B_FSA_sft147400_ema\.pth": KnownText("full", JUNE_TOKENIZERS[1:], CLIP),
    r"GRN_T2V_TITAN_FSA_sft10600_ema\.pth": KnownText("full", JUNE_TOKENIZERS[1:], CLIP),
    r"GRN_T2I_titan_FSA_256x256\.pth": KnownText("full", JUNE_TOKENIZERS, SMALL_PICTURE),
    # Others of June: the attention of all sizes is full since then.
    r"(?i:GRN_T2V_.*(FSA|TITAN|8B).*)": KnownText("full", JUNE_TOKENIZERS, CLIP),
    r"(?i:GRN_.*(FSA|TITAN|8B).*)": KnownText("full", JUNE_TOKENIZERS, PICTURE),
}
"""Names of files, tried in order."""


def recognize_text(file: Path, attention: Any) -> KnownText:
    """What is known of a text-conditional generator by the name of its file, or else by its attention.

    Parameters
    ----------
    attention : as the user gives it, None where he does not

    Raises
    ------
    UsageError
        If it is not given and needed, is none, or is not that of the known file.
    """
    known = next((known for pattern, known in FILES.items() if re.fullmatch(pattern, file.name)), None)
    if attention not in (None, *RELEASES):
        raise UsageError(
            f"{file}: attention is {attention!r}, expected {' or '.join(RELEASES)}; change it with --set attention="
        )
    if known is None and attention is None:
        choices = " or ".join(
            f"--set attention={variant} (the release of {release.name}, {release.sign}: {release.meaning})"
            for variant, release in RELEASES.items()
        )
        raise UsageError(
            f"{file}: does not tell how its text attends, and a wrong attention shifts every logit without any error; "
            f"give {choices}"
        )
    if known is None:
        return KnownText(attention, RELEASES[attention].tokenizers, SMALL_PICTURE)
    if attention not in (None, known.attention):
        raise UsageError(
            f"{file}: is by its name of the release of {known.release.name}, whose attention is {known.attention}, "
            f"and --set attention={attention} would shift every logit without any error; leave it out, or give the "
            "file another name if it is another one"
        )
    return known


def require_belonging(tokenizer: str, imported: Mapping[str, str] | None, belonging: Sequence[str]) -> None:
    """StoreMismatch for a released tokenizer that is known not to belong to a generator.

    Parameters
    ----------
    tokenizer : its run, for the message
    imported : where its weights came from; one that is not known by the name of its file may be any
    belonging : files of the tokenizers that do, none where they are not known
    """
    file = (imported or {}).get("file")
    if belonging and file in TOKENIZERS and file not in belonging:
        raise StoreMismatch(
            f"{tokenizer} was imported from {file}, and the generator learned the bits of {' or '.join(belonging)}; "
            "give a run of that one"
        )
