"""Where the official CIFAR-10 batches are; asked before torch is imported."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """Data that cannot be read; the message names the file and the cure."""


CURE = "get the data again with `smallprint data`, or leave out --data to use the embedded stand-in"
BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def find(root: Path) -> Path:
    """The `cifar-10-batches-py` folder: `root` itself or the one inside it."""
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "test_batch").is_file():
            return folder
    raise DataError(f"{root}: not a CIFAR-10 folder (no test_batch in it or in cifar-10-batches-py below it); {CURE}")
