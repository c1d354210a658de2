"""How the program keeps up with a large catalogue: `python -m scripts.benchmarks.bench [check] [site] [serve] [--entries 100 10000]`,
and how long it takes beside `import torch`: `python -m scripts.benchmarks.bench ratios [--method adaround musco]`.

Copies the repository to a temporary folder, fills it with entries made from the real ones, and times the commands there
in processes of their own: seconds from start to end, seconds of a processor (the fair number on a busy machine), most memory
of all their processes together, what they share counted once;
of a site, how large are its search index and the page of the whole catalogue; of a server, how long it rebuilds after an entry changed.
Ratios compare with `import torch` just before and after, in the same run, as machines differ: `check`, and the smoke run of each method
from command to verdict, one job, exact claims included.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from statistics import median

import yaml

from catalog.schema import METHOD_FAMILIES
from scripts.evidence import source

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("check", "site", "serve")
RATIOS = "ratios"
PARTS = ("catalog", "methods", "scripts", "site", "mkdocs.yml", "pyproject.toml")


def copies(root: Path, wanted: int) -> int:
    """Fill a catalogue with copies of its papers until it has so many entries; returns how many it has.

    A copy has its own slug, title and arXiv id; it has no claims and no equations, as those need a method, and no other identifiers.
    """
    models = [path for family in METHOD_FAMILIES for path in sorted((root / family).glob("*.yaml"))]
    number = len(list(root.glob("*/*.yaml"))) - len(list((root / "comparisons").glob("*.yaml")))  # tables are no entries
    for copy in range(max(0, wanted - number)):
        model = models[copy % len(models)]
        text = re.sub(r"^(claims|equations):\n(?:[ \n].*\n|\n)*", "", model.read_text(), flags=re.MULTILINE)
        text = re.sub(r"^(doi|arxiv|formerly):.*\n", "", text, flags=re.MULTILINE)
        title = f"title: {json.dumps(yaml.safe_load(text)['title'] + f' {copy}')}"
        text = re.sub(r"^title: .*(?:\n .*)*", lambda _, title=title: title, text, count=1, flags=re.MULTILINE)  # type: ignore[misc]
        text += f'arxiv: "{copy // 9000 + 1000:04d}.{copy % 9000 + 10000:05d}"\n'
        (model.parent / f"{model.stem}_{copy}.yaml").write_text(text)
    return max(wanted, number)


def timed(folder: Path, command: str) -> tuple[int, float, float, float]:
    """Exit code, seconds from start to end, seconds of a processor, most memory in MB of one command and what it starts."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    running = subprocess.Popen(
        [sys.executable, "-m", "scripts.cli", command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    most = 0.0
    with ThreadPoolExecutor(1) as other:
        said = other.submit(running.communicate)
        while not wait([said], timeout=0.25).done:
            most = max(most, sum(map(memory, family(running.pid))))
    whole, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if running.returncode:
        print(said.result()[0].decode("utf-8", "replace")[-4000:])
    return running.returncode, whole, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, most


def family(process: int) -> Iterator[int]:
    """A process and all that come from it."""
    yield process
    for known in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in known.read_text().split():
                yield from family(int(child))


def memory(process: int) -> float:
    """MB of a process; what it shares with others counts in parts."""
    with suppress(OSError):
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


REBUILD = """
import sys, tempfile
from pathlib import Path
from scripts.website.site import updater
root, entry = Path.cwd(), Path(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    said = []
    update = updater(root, Path(folder), "http://127.0.0.1:8000/", said.append)
    update()
    for word in ("One", "Another"):
        entry.write_text(entry.read_text().replace("summary: >\\n  ", f"summary: >\\n  {word} ", 1))
        update()
    print(said[-1])
"""


def rebuilt(folder: Path) -> str:
    """What a server says after an entry's text changed."""
    entry = min((folder / "catalog/quantization").glob("*.yaml"))
    done = subprocess.run(
        [sys.executable, "-c", REBUILD, entry], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


LARGE = ("search/search_index.json", "catalogue/index.html", "assets/names.js")


def sizes(site: Path) -> str:
    """The files that grow with the catalogue, and how much of them goes over the wire."""
    texts = {name: (site / name).read_bytes() for name in LARGE}
    return "\n".join(
        f"{name:30} {len(text) / 1e6:6.2f} MB, compressed {len(gzip.compress(text)) / 1e6:5.2f} MB" for name, text in texts.items()
    )


def seconds(*arguments: str) -> float:
    """How long a Python of its own takes for these arguments."""
    environment = {key: value for key, value in os.environ.items() if key != "SMALLPRINT_CIFAR10"}
    started = time.monotonic()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def ratios(names: list[str]) -> None:
    """Print how often `import torch` goes into `check` and into the smoke run of each method; then the median and the largest."""

    def importing() -> float:
        return seconds("-c", "import torch")

    importing()  # from the disk, not from memory
    rounds = [(importing(), seconds("-m", "scripts.cli", "check")) for _ in range(7)]
    print(f"{'check':40} {median(own / torch for torch, own in rounds):6.2f} x import torch", flush=True)
    found: dict[str, float] = {}
    before = importing()
    for name in names or sorted(source.methods(ROOT)):
        own = seconds("-m", "scripts.cli", "smoke", name)
        after = importing()
        found[name], before = own / ((before + after) / 2), after
        print(f"{name:40} {found[name]:6.1f} x import torch ({own:.1f} s)", flush=True)
    worst = max(found, key=lambda name: found[name])
    print(f"{len(found)} methods: median {median(found.values()):.1f}, largest {found[worst]:.1f} ({worst})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", help=f"of {', '.join((*COMMANDS, RATIOS))}; default: all but the last")
    parser.add_argument("--method", nargs="+", default=[], metavar="NAME", help=f"with {RATIOS}: only these")
    parser.add_argument("--entries", type=int, nargs="+", default=[100, 1_000, 10_000])
    asked = parser.parse_args()
    if wrong := [name for name in asked.commands if name not in (*COMMANDS, RATIOS)]:
        parser.error(f"there is no {wrong[0]}; use {', '.join((*COMMANDS, RATIOS))}")
    if RATIOS in asked.commands:
        ratios(asked.method)
        if asked.commands == [RATIOS]:
            return
    for entries in asked.entries:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for part in PARTS:
                whole = ROOT / part
                shutil.copytree(whole, folder / part) if whole.is_dir() else shutil.copy(whole, folder / part)
            number = copies(folder / "catalog", entries)
            for name in [name for name in asked.commands if name != RATIOS] or COMMANDS:
                if name == "serve":
                    print(f"serve  {number:6} entries {rebuilt(folder)}", flush=True)
                    continue
                code, seconds, worked, memory = timed(folder, name)
                print(
                    f"{name:6} {number:6} entries {seconds:7.2f} s, {worked:7.2f} s of a processor, {memory:6.0f} MB"
                    + (f" exit {code}" if code else ""),
                    flush=True,
                )
                if name == "site" and not code:
                    print(sizes(folder / "build/site"), flush=True)


if __name__ == "__main__":
    main()
