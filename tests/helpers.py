"""What several tests use: a network such as people bring, and a server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import torch
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.task import Task

Server = TypeVar("Server", bound=ThreadingHTTPServer)


class Mixed(nn.Module):
    """A stride, a shortcut, a grouped convolution, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nets.conv_bn(3, 8)
        self.block = nets.Residual(8, 16, stride=2)
        self.grouped = nets.conv_bn(16, 16, groups=4)
        self.wide = nets.conv_bn(16, 24)
        self.fc1, self.fc2 = nn.Linear(24, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.grouped(self.block(self.stem(x))))
        return self.fc2(torch.relu(self.fc1(x.mean((2, 3)))))


def noise(steps: int) -> Task:
    """A task of few random images (3, 12, 12) and five classes."""
    chance = torch.Generator().manual_seed(0)

    def batches(count: int) -> list[tuple[Tensor, Tensor]]:
        return [(torch.randn(8, 3, 12, 12, generator=chance), torch.randint(5, (8,), generator=chance)) for _ in range(count)]

    return Task.from_loaders(batches(3), batches(1), batches(1), steps=steps, batch=8)


class Quiet(BaseHTTPRequestHandler):
    """Answers without a word on standard error."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: Server, stop: Callable[[], object] = lambda: None) -> Iterator[Server]:
    """Run a server in a thread; `stop` wakes handlers that hang before it is shut down."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            stop()
            server.shutdown()
            thread.join()
