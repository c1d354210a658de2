"""Train the reference weights that are committed in methods/kit/weights: `python -m scripts.train [--data DIR] [NET ...]`.

Without --data on the stand-in, else on all of CIFAR-10 (45,000 images; the last 5,000 stay unseen as validation).
Takes one to forty minutes a network on one core. Writes NET-DATA.safetensors (fp16) and its line in weights.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from methods.kit.nets import NETS, WEIGHTS, count, family
from methods.kit.standin import standin
from methods.kit.task import Task, accuracy, cifar10
from methods.kit.train import fit

EPOCHS = {
    "cifar10": {"resnet8": 30, "resnet20": 22, "vgg_wide": 8, "depthwise": 8},
    "standin": {"resnet8": 17, "resnet20": 15, "vgg_wide": 10, "depthwise": 12},
}
RATE = {"resnet8": 0.2, "resnet20": 0.2, "vgg_wide": 0.1, "depthwise": 0.1}


def train(net: str, task: Task, epochs: int) -> dict[str, object]:
    """Train, round to fp16, test the rounded network, write both files whole or not at all; return what was recorded."""
    started = time.monotonic()
    torch.manual_seed(task.seed)
    model = fit(NETS[net](), task.with_steps(epochs * len(task.train) // task.batch), lr=RATE[net])
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in halves.items()})
    key = f"{net}-{family(task.name)}"
    line = {
        "accuracy": round(accuracy(model, task.test), 4), "parameters": count(model), "data": task.name, "digest": task.digest,
        "images": len(task.train), "epochs": epochs, "batch": task.batch, "lr": RATE[net], "seed": task.seed,
        "torch": torch.__version__, "minutes": round((time.monotonic() - started) / 60, 1),
    }  # fmt: skip
    part = WEIGHTS / f"{key}.part"
    save_file({k: v.contiguous() for k, v in halves.items()}, part)
    os.replace(part, WEIGHTS / f"{key}.safetensors")
    book = WEIGHTS / "weights.json"
    lines = json.loads(book.read_text()) if book.exists() else {}
    part.write_text(json.dumps(dict(sorted({**lines, key: line}.items())), indent=1) + "\n")
    os.replace(part, book)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=list(RATE), help="of " + ", ".join(RATE))
    parser.add_argument("--data", type=Path, help="CIFAR-10 folder; default: the stand-in")
    arguments = parser.parse_args()
    task = cifar10(arguments.data, steps=1) if arguments.data else standin(steps=1)
    WEIGHTS.mkdir(exist_ok=True)
    for net in arguments.nets:
        print(net, train(net, task, EPOCHS[family(task.name)][net]), flush=True)


if __name__ == "__main__":
    main()
