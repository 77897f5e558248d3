"""Gradients are averaged over processes while the backward pass still computes others."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grncli.runtime.processes import Processes, Sum

BUCKET_BYTES = 25 << 20  # of gradients that are sent together: enough to use a network, few enough to begin early
ON_THEIR_WAY = 4  # buckets at most, each of which is a copy of its gradients


class GradientAverager:
    """Replaces gradients by their mean over all processes, each of which has a gradient of the same parameters.

    The last parameters have their gradients first: they are sent in buckets, in one order in all processes.

    Parameters
    ----------
    parameters : in the order in which a forward pass meets them
    """

    def __init__(self, parameters: Iterable[nn.Parameter], processes: Processes) -> None:
        self.processes = processes
        self._buckets = _buckets([parameter for parameter in parameters if parameter.numel()][::-1])
        self._place = {parameter: place for place, bucket in enumerate(self._buckets) for parameter in bucket}
        self._missing: list[int] | None = None  # gradients by bucket that are still to come; None sends nothing
        self._next = 0  # bucket to send
        self._sent: deque[_Sent] = deque()
        for parameter in self._place:
            parameter.register_post_accumulate_grad_hook(self._is_ready)  # type: ignore[no-untyped-call]

    def expect(self) -> None:
        """Send gradients during the backward pass that follows, which is the last one of its step."""
        self._missing = [len(bucket) for bucket in self._buckets]

    def finish(self) -> None:
        """Send what was not sent, and return once all gradients are averaged."""
        while self._next < len(self._buckets):
            self._send()
        self._take_back(0)
        self._next, self._missing = 0, None

    def _is_ready(self, parameter: nn.Parameter) -> None:
        if self._missing is None:
            return
        self._missing[self._place[parameter]] -= 1
        while self._next < len(self._buckets) and not self._missing[self._next]:
            self._send()

    def _send(self) -> None:
        gradients = [parameter.grad for parameter in self._buckets[self._next] if parameter.grad is not None]
        self._next += 1
        if gradients:
            self._take_back(ON_THEIR_WAY - 1)
            values = gradients[0] if len(gradients) == 1 else torch.cat([gradient.flatten() for gradient in gradients])
            self._sent.append(_Sent(gradients, values, self.processes.start_sum(values)))

    def _take_back(self, left: int) -> None:
        """Wait for the first ones until no more than ``left`` are on their way."""
        while len(self._sent) > left:
            self._sent.popleft().finish(self.processes.count)


@dataclass(frozen=True)
class _Sent:
    """Gradients on their way, and their values one behind the other."""

    gradients: list[Tensor]
    values: Tensor
    work: Sum

    def finish(self, count: int) -> None:
        self.work.wait()
        self.values.div_(count)
        if len(self.gradients) > 1:
            parts = self.values.split_with_sizes([gradient.numel() for gradient in self.gradients])
            shaped = [part.view_as(gradient) for part, gradient in zip(parts, self.gradients, strict=True)]
            torch._foreach_copy_(self.gradients, shaped)


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters in their order; one that fills a bucket is alone in it, and needs no copy."""
    buckets: list[list[nn.Parameter]] = []
    size = BUCKET_BYTES
    for parameter in parameters:
        own = parameter.numel() * parameter.element_size()
        if size + own > BUCKET_BYTES:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += own
    return buckets
