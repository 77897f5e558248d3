"""Networks that turn media into the features whose distributions Fréchet distances compare.

A network is one of two published ones (Inception for the FID, I3D for the FVD), any other weights file, recognized by
its content and not by its name, or a tokenizer of ours.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from grncli.metrics.exported_networks import (
    arguments_of,
    call_exported,
    checked_vectors,
    exactly,
    is_torchscript,
    load_torchscript,
)
from grncli.models.inception import InceptionV3
from grncli.models.tokenizer import Tokenizer
from grncli.models.unfilled import made_on_meta
from grncli.runs.networks import fill
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runs.weight_files import WeightFile, find_weights, present_weights, take_weights
from grncli.runtime.errors import CheckpointError
from grncli.runtime.held_files import HeldFile
from grncli.runtime.monitor import Say
from grncli.runtime.tensor_files import read_released, read_tensors, sha256_of

Takes = Literal["images", "clips", "samples"]

PUBLISHED: Mapping[str, Sequence[WeightFile]] = {  # in the order they are looked for
    "inception": (
        WeightFile(
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        ),
        WeightFile(
            "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
            "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        ),
    ),
    "i3d": (
        WeightFile(
            "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
            "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
            name="i3d_torchscript.pt",
        ),
    ),
}
FRECHET = {"inception": "fid", "i3d": "fvd"}  # what the distance in their features is called
BATCH = 32  # pictures a pass: a clip may have hundreds of frames, and Inception takes 20 MB for each

INCEPTION_SIZE = "299x299, bilinear as in TensorFlow 1 (inside the network)"
I3D_SIZE = "224x224, bilinear (inside the network)"
UNKNOWN_SIZE = "as decoded (what the network does inside is not known)"


@dataclass(frozen=True)
class Features:
    """The output of a network for a batch."""

    values: Tensor
    """float32 ``[n, D]``, finite."""
    probabilities: Tensor | None = None
    """float32 ``[n, K]`` of the classes, for the Inception Score; None unless asked for and the network classifies."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which network it is."""

    name: str
    """``inception``, ``i3d``, or the name of its file or of its tokenizer's run."""
    sha256: str
    """Of its file."""
    frechet: str = "fd"
    """What the Fréchet distance of its features is called: only published weights give an ``fid`` or ``fvd``."""


class FeatureNetwork(ABC):
    """Frames to features. Subclasses say how; this class checks what goes in and what comes out."""

    takes: Takes
    """What has a feature of its own: every frame (images), a clip of several frames, or a sample of either kind."""
    size_note: str
    """To what size it brings its input, and how."""
    classifies: bool
    """Whether it has class probabilities as well."""
    classes: Sequence[str] = ()
    """Names of the classes, where the file tells them (``classes``, a list of strings, in TorchScript)."""

    def __init__(self, identity: Identity, device: torch.device) -> None:
        self.name = identity.name
        self.sha256 = identity.sha256
        self.frechet = identity.frechet
        self.device = device

    @property
    def known(self) -> bool:
        """Whether its weights are published ones, whose distances compare with those of others."""
        return self.frechet != "fd"

    def about(self) -> dict[str, str]:
        """Which network it is and how it takes its input, for reports and statistics files."""
        return {"name": self.name, "sha256": self.sha256, "input": self.size_note}

    def __call__(self, frames: Tensor, *, probabilities: bool = False) -> Features:
        """Features of a batch; the same batch gives the same ones again.

        Parameters
        ----------
        frames : uint8 ``[B, T, H, W, 3]`` on any device, a picture having T = 1
        probabilities : compute those of the classes as well, which may cost a second pass

        Returns
        -------
        On ``device``, for n = B * T frames (a clip's follow one another) where it takes images, and n = B otherwise.

        Raises
        ------
        ValueError
            If ``frames`` has another shape or type, or the network does not take frames of that number or size.
        GrnError
            If the network fails on them, or gives anything but one vector of finite numbers for each.
        """
        if frames.dtype != torch.uint8 or frames.dim() != 5 or frames.shape[-1] != 3:
            raise ValueError(
                f"{self.name} was given {list(frames.shape)} in {frames.dtype}, expected uint8 [B, T, H, W, 3]"
            )
        if self.takes == "clips" and frames.shape[1] == 1:
            raise ValueError(f"{self.name} takes clips, it was given single pictures; choose a network of images")
        with exactly():
            parts = [self._pass(batch, probabilities) for batch in self._batches(frames.to(self.device))]
        classes = [part.probabilities for part in parts if part.probabilities is not None]
        return Features(torch.cat([part.values for part in parts]), torch.cat(classes) if classes else None)

    def _batches(self, frames: Tensor) -> Sequence[Tensor]:
        if self.takes != "images":
            return [frames]
        return torch.split(rearrange(frames, "b t h w c -> (b t) 1 h w c"), BATCH)

    def _pass(self, frames: Tensor, probabilities: bool) -> Features:
        features, classes = self._outputs(frames, probabilities and self.classifies)
        values = checked_vectors(self.name, "features", features, len(frames))
        return Features(
            values, None if classes is None else checked_vectors(self.name, "probabilities", classes, len(frames))
        )

    @abstractmethod
    def _outputs(self, frames: Tensor, probabilities: bool) -> tuple[Any, Any]:
        """What the network gives for uint8 ``[n, T, H, W, 3]`` (T = 1 where it takes images): features, and classes.

        The second is None without ``probabilities``.
        """


class InceptionFeatures(FeatureNetwork):
    """Our Inception: last pooled features, and the softmax of its logits without bias."""

    takes = "images"
    size_note = INCEPTION_SIZE
    classifies = True

    def __init__(self, identity: Identity, device: torch.device, network: InceptionV3) -> None:
        super().__init__(identity, device)
        self.network = network.to(device)

    def _outputs(self, frames: Tensor, probabilities: bool) -> tuple[Tensor, Tensor | None]:
        features, logits = self.network(_pictures(frames))
        return features, logits.softmax(dim=1) if probabilities else None


class ScriptedFeatures(FeatureNetwork):
    """A TorchScript network, called in the way that the names of its arguments tell.

    ``return_features``, ``rescale`` and ``resize`` are those of StyleGAN-V's I3D, which takes clips, float
    ``[B, 3, T, H, W]`` of 0 to 255. ``return_features`` without these is StyleGAN's Inception, which takes pictures,
    uint8 ``[B, 3, H, W]``; with ``no_output_bias`` it gives class probabilities in another pass. A network with one
    argument gives features of such pictures.
    """

    def __init__(self, identity: Identity, device: torch.device, module: torch.jit.ScriptModule, file: Path) -> None:
        super().__init__(identity, device)
        self.module = module.to(device)
        arguments = arguments_of(module)
        self.options = _options(arguments, file)
        clips = "rescale" in self.options
        self.takes = "clips" if clips else "images"
        self.classifies = not clips and {"return_features", "no_output_bias"} <= arguments.keys()
        self.classes = tuple(map(str, getattr(module, "classes", ())))
        pictures_size = INCEPTION_SIZE if self.known else UNKNOWN_SIZE
        self.size_note = I3D_SIZE if clips else pictures_size

    def _outputs(self, frames: Tensor, probabilities: bool) -> tuple[Any, Any]:
        clips = self.takes == "clips"
        x = rearrange(frames, "b t h w c -> b c t h w").float().contiguous() if clips else _pictures(frames)
        return self._call(x, self.options), self._call(x, {"no_output_bias": True}) if probabilities else None

    def _call(self, x: Tensor, options: Mapping[str, bool]) -> Any:
        return call_exported(self.name, self.module, x, **options)


class TokenizerFeatures(FeatureNetwork):
    """Mean and standard deviation over a sample's tokens of each of the C features, before they are quantized."""

    takes = "samples"
    size_note = "as decoded"
    classifies = False

    def __init__(self, identity: Identity, device: torch.device, tokenizer: Tokenizer) -> None:
        super().__init__(identity, device)
        self.tokenizer = tokenizer.to(device)

    def _outputs(self, frames: Tensor, probabilities: bool) -> tuple[Tensor, None]:
        tokens = self.tokenizer.encode_frames(frames).flatten(2)
        return torch.cat([tokens.mean(dim=2), tokens.std(dim=2, correction=0)], dim=1), None


def load_feature_network(
    which: str | Path,
    *,
    cache: Path,
    download: bool = False,
    device: str | torch.device = "cpu",
    opened: LoadedTokenizer | None = None,
    say: Say = lambda text: None,
) -> FeatureNetwork:
    """A network by name, file or run.

    Parameters
    ----------
    which : ``inception`` or ``i3d`` as published (``./i3d`` is a file); a file: weights of Inception under the names
        of torch-fidelity (.safetensors or a PyTorch checkpoint), or a TorchScript archive, see `ScriptedFeatures`; or
        the run directory of a tokenizer. TorchScript is a program: use files of people you trust. Of a checkpoint
        nothing but its tensors is read.
    cache : directory with published files under their names, such as ``features`` in the user's cache folder
    download : fetch the published file that is missing, once; without it nothing is ever fetched
    device : where to compute
    opened : a tokenizer that is open already, used where ``which`` is its run
    say : gets a sentence before something is fetched, and where the training of a tokenizer is not finished

    Returns
    -------
    FeatureNetwork
        Frozen, in evaluation mode.

    Raises
    ------
    CheckpointError
        If there is no such network, it cannot be fetched, or the file is damaged, hostile, of another kind, or not the
        one that was published under its name.
    """
    device = torch.device(device)
    if which in PUBLISHED:
        return _load_file(_find_published(str(which), cache, download, say), device)
    path = Path(which)
    if path.is_dir():
        loaded = opened if opened is not None and opened.run == path else open_tokenizer(path, say=say)
        return TokenizerFeatures(Identity(**loaded.identity), device, loaded.network)
    if not path.is_file():
        names = ", ".join(PUBLISHED)
        raise CheckpointError(f"{path}: is not there, expected {names}, a file or the run directory of a tokenizer")
    return _load_file(path, device)


def _find_published(name: str, cache: Path, download: bool, say: Say) -> Path:
    """The published file in the cache: any that is there, or else the first one."""
    files = PUBLISHED[name]
    file = next((file for file in files if present_weights(cache, file)), files[0])
    (path,) = find_weights(cache, [file], download=download, say=say, remedy="add --download")
    sha256 = sha256_of(path)
    if sha256 != file.sha256:
        raise CheckpointError(
            f"{path}: has the sha256 {sha256}, expected {file.sha256} of {file.url}; remove it and get that one"
        )
    return path


def _load_file(file: Path, device: torch.device) -> FeatureNetwork:
    with HeldFile(file) as held:
        sha256 = held.sha256()
        known = next((name for name, files in PUBLISHED.items() if sha256 in {file.sha256 for file in files}), None)
        identity = Identity(name=known or file.name, sha256=sha256, frechet=FRECHET[known] if known else "fd")
        network: FeatureNetwork
        if is_torchscript(file):
            network = ScriptedFeatures(identity, device, load_torchscript(file), file)
        else:
            network = InceptionFeatures(identity, device, _load_inception(file))
        held.confirm()
    return network


def _load_inception(file: Path) -> InceptionV3:
    contents = read_tensors(file) if _is_safetensors(file) else read_released(file)
    network = made_on_meta(InceptionV3)
    # Batch norm counts the batches it was trained on; older files lack that, and nothing uses it.
    wanted = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    counters = {key: torch.zeros((), dtype=torch.long) for key in network.state_dict().keys() - wanted.keys()}
    return fill(network, take_weights(contents, wanted, file, "Inception") | counters, str(file))


def _is_safetensors(file: Path) -> bool:
    """Whether it starts as such files do: the length of a JSON object, in 8 bytes, and the object."""
    with file.open("rb") as stream:
        head = stream.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def _options(arguments: Mapping[str, bool], file: Path) -> dict[str, bool]:
    """What to call a network with for its features, besides the input; see `ScriptedFeatures`."""
    for options in ({"return_features", "rescale", "resize"}, {"return_features"}):
        rest = [required for name, required in arguments.items() if name not in options]
        if options <= arguments.keys() and rest and not any(rest[1:]):
            return dict.fromkeys(options, True)
    if len(arguments) == 1 and "return_features" not in arguments:
        return {}
    raise CheckpointError(
        f"{file}: takes the arguments ({', '.join(arguments)}), expected a network of one tensor, or one with "
        f"return_features (as StyleGAN's Inception), or with return_features, rescale and resize (as I3D)"
    )


def _pictures(frames: Tensor) -> Tensor:
    return rearrange(frames, "n 1 h w c -> n c h w").contiguous()
