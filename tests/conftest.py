"""What all tests share: no connection beyond this machine, one thread for torch, and examples that are the same every time."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)
settings.register_profile("same", derandomize=True, deadline=None, database=None)  # a red build is the change's fault
settings.register_profile("free", derandomize=False, deadline=None, print_blob=True)  # new examples every time, on a server of CI too
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
os.environ.pop("SMALLPRINT_SITE_URL", None)  # builds are tested without an address, unless a test gives one


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to other machines fail; a server of the test's own is fine."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests are offline: no connection to {address}")
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.delenv("SMALLPRINT_CIFAR10", raising=False)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
