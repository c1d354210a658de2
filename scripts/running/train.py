"""Train the reference weights that are committed in methods/kit/weights: `python -m scripts.running.train [--data DIR] [NET ...]`.

Without --data on the stand-in, else on all of CIFAR-10 (45,000 images; the last 5,000 stay unseen as validation).
Takes one to forty minutes a network on one core. Writes NET-DATA.safetensors (fp16) and its line in weights.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from methods.kit.nets import NETS, WEIGHTS, count, family, trained
from methods.kit.standin import standin
from methods.kit.task import Task, accuracy, cifar10
from methods.kit.train import fit
from scripts.evidence import files

Cycle = tuple[int, float] | tuple[int, float, float]  # epochs, peak learning rate, weight decay where it is not 5e-4
RECIPES: dict[str, dict[str, list[Cycle]]] = {
    "cifar10": {
        "resnet8": [(30, 0.2), (9, 0.05), (16, 0.1)], "resnet20": [(22, 0.2), (7, 0.05), (25, 0.1), (19, 0.05, 1e-4)],
        "vgg_wide": [(8, 0.1)], "depthwise": [(8, 0.1)],
    },
    "standin": {"resnet8": [(17, 0.2)], "resnet20": [(15, 0.2)], "vgg_wide": [(10, 0.1)], "depthwise": [(12, 0.1)]},
}  # fmt: skip


def train(net: str, task: Task, cycles: list[Cycle], last_only: bool = False) -> dict[str, object]:
    """Train, round to fp16, test the rounded network, write both files whole or not at all; return what was recorded."""
    started = time.monotonic()
    torch.manual_seed(task.seed)
    model = trained(net, task.name) if last_only else NETS[net]()
    for number, (epochs, lr, *decay) in enumerate(cycles):
        if not last_only or number == len(cycles) - 1:
            seeded = replace(task, seed=task.seed + number, steps=epochs * len(task.train) // task.batch)
            model = fit(model, seeded, lr=lr, weight_decay=decay[0] if decay else 5e-4)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in halves.items()})
    key, book = f"{net}-{family(task.name)}", WEIGHTS / "weights.json"
    lines = json.loads(book.read_text("utf-8")) if book.exists() else {}
    earlier = lines[key]["minutes"] if last_only else 0  # of the cycles before
    line = {
        "accuracy": round(accuracy(model, task.test), 4), "parameters": count(model), "data": task.name, "digest": task.digest,
        "images": len(task.train), "cycles": cycles, "batch": task.batch, "seed": task.seed,
        "torch": torch.__version__, "minutes": round(earlier + (time.monotonic() - started) / 60, 1),
    }  # fmt: skip
    with files.whole(WEIGHTS / f"{key}.safetensors") as part:
        save_file({k: v.contiguous() for k, v in halves.items()}, part)
    files.write(book, json.dumps(dict(sorted({**lines, key: line}.items())), indent=1) + "\n")
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=list(RECIPES["standin"]), help="of " + ", ".join(RECIPES["standin"]))
    parser.add_argument("--data", type=Path, help="CIFAR-10 folder; default: the stand-in")
    parser.add_argument("--last-cycle", action="store_true", help="go on from the committed weights with the recipe's last cycle")
    arguments = parser.parse_args()
    task = cifar10(arguments.data, steps=1) if arguments.data else standin(steps=1)
    WEIGHTS.mkdir(exist_ok=True)
    for net in arguments.nets:
        print(net, train(net, task, RECIPES[family(task.name)][net], arguments.last_cycle), flush=True)


if __name__ == "__main__":
    main()
