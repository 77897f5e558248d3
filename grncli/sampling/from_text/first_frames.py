"""Pictures of the user's that clips start from: one for all prompts, or one for each."""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from grncli.hbq import quantize
from grncli.media.formats import kind_of_suffix, suffix_of
from grncli.media.framing import cover_with_lanczos, covering_size
from grncli.media.images import open_image
from grncli.models.tokenizer import Tokenizer
from grncli.models.transformer import Grid
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.files import read_plain
from grncli.runtime.monitor import Say
from grncli.tokens import TokenCodec

MAX_BYTES = 1 << 28


class FirstFrames:
    """The first frames of clips, scaled to cover them, cropped round the centre, and each encoded alone.

    Parameters
    ----------
    path : a picture, or a folder of pictures in the order of their names
    prompts : number of prompts; one picture serves all of them
    grid : of the clips
    stride : pixels per token
    say : called with a sentence where pictures are scaled or cropped

    Attributes
    ----------
    digest : hash of the pictures' files, in their order

    Raises
    ------
    UsageError
        If a picture cannot be read, or there is another number of them than of prompts.
    """

    def __init__(
        self, path: Path, prompts: int, grid: Grid, stride: Sequence[int], codec: TokenCodec, *, say: Say
    ) -> None:
        if grid[0] == 1:
            raise UsageError(f"--first-frame {path}: the samples are single frames, expected clips (--frames)")
        self._grid, self._codec = grid, codec
        self._height, self._width = grid[1] * stride[1], grid[2] * stride[2]
        self._files = _pictures_of(path)
        if len(self._files) not in (1, prompts):
            raise UsageError(
                f"--first-frame {path}: has {len(self._files)} pictures for {prompts} prompts, expected one for each, "
                "or one for all"
            )
        self._hashes: list[str] = []
        self._tokens: dict[int, Tensor] = {}
        self._check(path, say)
        self.digest = sha256(json.dumps(self._hashes).encode()).hexdigest()

    def encode(self, tokenizer: Tokenizer, prompts: Iterable[int]) -> None:
        """Compute the tokens of the pictures that these prompts start from, on the tokenizer's device."""
        device = next(tokenizer.parameters()).device
        for place in sorted({prompt % len(self._files) for prompt in prompts}):
            picture = cover_with_lanczos(self._open(place), self._height, self._width)
            frame = torch.from_numpy(np.array(picture))[None, None].to(device)
            with torch.inference_mode():
                index = quantize(tokenizer.encode_frames(frame), self._codec.rounds)
            self._tokens[place] = self._codec.to_tokens(index)[0].cpu()

    def known(self, prompt: int) -> tuple[Tensor, Tensor]:
        """Tokens of a clip of a prompt, uint8 ``[channels, T, h, w]``, and the mask of its first frame."""
        shape = (self._codec.token_channels, *self._grid)
        tokens, known = torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape, dtype=torch.bool)
        tokens[:, :1] = self._tokens[prompt % len(self._files)]
        known[:, 0] = True
        return tokens, known

    def described(self, prompt: int) -> dict[str, Any]:
        """The picture that a prompt starts from, for records."""
        place = prompt % len(self._files)
        return {"first_frame": self._files[place].name, "first_frame_sha256": self._hashes[place]}

    def _check(self, path: Path, say: Say) -> None:
        """Read every picture once, and tell how they are fitted."""
        fitted: dict[tuple[int, int], int] = {}
        for place, file in enumerate(self._files):
            size = self._open(place).size
            try:
                covering_size(size, self._height, self._width)
            except MediaError as error:
                raise UsageError(f"--first-frame {file}: {error}; crop it first") from None
            fitted[size] = fitted.get(size, 0) + 1
        for (width, height), count in fitted.items():
            if (width, height) == (self._width, self._height):
                continue
            which = f"{count} pictures are" if len(self._files) > 1 else "is"
            smaller = width < self._width or height < self._height
            how = "smaller than the clips, and enlarged" if smaller else "scaled"
            say(
                f"--first-frame {path}: {which} {width}x{height} pixels, {how} to cover {self._width}x{self._height} "
                "and cropped round the centre"
            )

    def _open(self, place: int) -> Image.Image:
        """A picture; its hash is kept at the first time, and compared later."""
        file = self._files[place]
        try:
            content = read_plain(file, MAX_BYTES)
            if content is None:
                raise MediaError(f"is larger than {MAX_BYTES >> 20} MiB")
            picture = open_image(BytesIO(content), suffix=suffix_of(str(file)))
        except OSError as error:
            raise UsageError(f"--first-frame {file}: cannot be read ({error.strerror}), expected a picture") from None
        except MediaError as error:
            raise UsageError(f"--first-frame {file}: cannot be read as a picture: it {error}") from None
        digest = sha256(content).hexdigest()
        if place == len(self._hashes):
            self._hashes.append(digest)
        elif self._hashes[place] != digest:
            raise UsageError(f"--first-frame {file}: changed while it was read; run the command again")
        return picture


def _pictures_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    pictures = sorted(file for file in path.iterdir() if kind_of_suffix(file.name) == "image" and file.name[0] != ".")
    if not pictures:
        raise UsageError(
            f"--first-frame {path}: the folder has no picture, expected one for each prompt, or one for all"
        )
    return pictures
