"""On a CUDA device the text-image score is that of the CPU, for TorchScript and for exported programs.

``GRN_TEST_DEVICE=cpu`` runs the same tests on the CPU, which shows that they run where there is no GPU.
"""

import os

import pytest
import torch
from torch import Tensor, nn

from grncli.metrics.text_image import load_text_image_network

DEVICE = os.environ.get("GRN_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.device(DEVICE).type == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"
    ),
]


class Projected(nn.Module):
    """Mean colours through weights and a constant, both of which have to be where the pictures are."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(3, 3)
        self.register_buffer("offset", torch.tensor([0.1, 0.2, 0.3]))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.project(pictures.float().flatten(2).mean(2) / 255) + self.offset


@pytest.mark.parametrize("kind", ["pt", "pt2"])
def test_scores_are_those_of_the_cpu(colour_networks, save_script, tmp_path, kind):
    torch.manual_seed(0)
    module, file = Projected(), tmp_path / "image.pt2"
    if kind == "pt2":
        sizes = ({0: torch.export.Dim("batch")},)
        example = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=sizes), file)
    else:
        file = save_script(module)
    frames = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8)
    scores = []
    for device in ("cpu", DEVICE):
        network = load_text_image_network(file, colour_networks[1], device=device)
        scores.append(network.score(network.images(frames), network.texts(["red", "no blue"] * 20)))
    assert torch.allclose(*scores, atol=1e-3)
