"""In which form ``grn decode`` writes samples: the kind of picture, and whether files or shards of them."""

from dataclasses import dataclass
from typing import Any

from grncli.media.picture_formats import PNG, PictureFormat
from grncli.runtime.errors import UsageError

SHARDS = "webdataset"
SHARD_SIZE = 1000
QUALITY = 95

PICTURES = ("png", "jpg", "webp")
FORMATS = (*PICTURES, SHARDS, *(f"{SHARDS}:{name}" for name in PICTURES[1:]))


@dataclass(frozen=True)
class OutputForm:
    """What becomes of a sample.

    Parameters
    ----------
    picture : how pictures are encoded; clips are MP4 in any case
    shard_size : samples of a tar file, the WebDataset way; None for a file each
    """

    picture: PictureFormat = PNG
    shard_size: int | None = None

    def settings(self) -> dict[str, Any]:
        """For the marker of a folder: what differs from PNG files, which folders are that say nothing."""
        named = {"format": self.picture.name, "quality": self.picture.quality, "shard_size": self.shard_size}
        return {name: value for name, value in named.items() if value not in (None, PNG.name)}


PNG_FILES = OutputForm()


def parse_output_form(name: str, quality: int | None, shard_size: int | None) -> OutputForm:
    """The form that the options ``--format``, ``--quality`` and ``--shard-size`` ask for; UsageError for others."""
    if name not in FORMATS:
        raise UsageError(f"--format {name}: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    shards, _, picture = name.rpartition(":") if name != SHARDS else (SHARDS, "", PNG.name)
    if quality is not None and picture == PNG.name:
        raise UsageError(
            f"--quality {quality} with --format {name}: PNG loses nothing; leave it out, or choose jpg or webp"
        )
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"--quality {quality}: expected 1 to 100")
    if shard_size is not None and not shards:
        raise UsageError(f"--shard-size {shard_size} with --format {name}: only webdataset has shards")
    chosen = PNG if picture == PNG.name else PictureFormat(picture, quality or QUALITY)
    return OutputForm(chosen, (shard_size or SHARD_SIZE) if shards else None)
