"""A program of its own: compress a toy network with a method, from the project or from the one file that was taken of it.

    python at_home.py MODULE SAVED

writes what comes back of `compress` and of every control. Where MODULE is no part of the project, the project cannot be imported.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import Any

OURS = ("methods", "catalog", "scripts")


class Barred:
    """Refuses the project's own packages."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] in OURS:
            raise ImportError(f"{name} is no part of a file to take home")


def main(module: str, saved: str) -> None:
    if module.split(".")[0] not in OURS:
        sys.meta_path.insert(0, Barred())  # type: ignore[arg-type]
    method = importlib.import_module(module)

    import torch
    from torch import nn

    torch.manual_seed(0)
    detects = hasattr(method, "prepare")
    layers: list[nn.Module] = []
    for inputs, outputs, last in ((3, 16, True), (16, 32, False), (32, 32, True), (32, 32, not detects)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if last else []
    top = [nn.Conv2d(32, 14, 1)] if detects else [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)]
    model = nn.Sequential(*layers, *top)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.ndim > 1):  # of low rank under noise, as if it had learned
            u, v = (torch.randn(count, max(1, count // 4)) for count in weight.shape[:2])
            core = torch.randn(u.shape[1], v.shape[1], *weight.shape[2:])
            signal = torch.einsum("or,rs...,is->oi...", u, core, v)
            weight.copy_(weight.std() * (signal / signal.std() + 0.1 * torch.randn_like(signal)))
        for _ in range(3):
            model.train()(torch.randn(16, 3, 32, 32))
    model.eval()

    task_of = method.Task.from_loaders
    splits = [[(torch.randn(16, 3, 32, 32), torch.arange(16) % 10) for _ in range(count)] for count in (4, 2, 1)]
    task = task_of(*splits, steps=3, batch=8)
    task = method.prepare(task) if detects else task
    point, published = getattr(method, "SMOKE", None) or method.Config(), method.Config()
    config = point[0] if isinstance(point, tuple) else point
    config = replace(config, student=published.student) if hasattr(config, "student") else config
    x, found = torch.randn(4, 3, 32, 32), {}
    for name in ("compress", *sorted(name for name in vars(method) if name.startswith("control_"))):
        torch.manual_seed(0)
        like = (found["compress"][2],) if "compress" in found else ()
        small = getattr(method, name)(model, task, config, *like).eval()
        with torch.no_grad():
            found[name] = (small.state_dict(), small(x), small)
    torch.save({name: (state, answer) for name, (state, answer, _) in found.items()}, saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
