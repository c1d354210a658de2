"""Which methods were green and have not changed since: `smallprint smoke` of all methods need not run those again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from catalog import Problem, Record
from methods.kit.batches import BATCHES, DataError, find
from scripts.evidence import files, records, source
from scripts.evidence.definitions import WATCHING, Codes

VERSIONS = ("torch", "numpy", "scipy", "scikit-learn", "tensorly", "torch-pruning")
PROCESSOR = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE")  # settings that change what it computes
RUNNERS = (
    *("scripts/running/smoke.py", "scripts/running/runs.py", "scripts/running/processes.py", "scripts/running/stamp.py"),
    *("scripts/running/fairness.py", "scripts/evidence/outcome.py", "scripts/evidence/records.py", "scripts/evidence/owed.py"),
    *("catalog/owed.yaml", *WATCHING),
)
MOST = 20  # runs that are kept of each method


def key(root: Path, record: Record, options: dict[str, Any], threads: int | None) -> str:
    """Everything that a run's verdicts depend on, in sixteen digits: code, claims, record, weights, data, versions, processor, options."""
    method = source.read(root, root / record.program)
    told: list[object] = [options["tiers"], options["seeds"], options["device"], threads, _data(options["data"]), _processor()]
    told += [platform.python_version(), *map(_version, VERSIONS), *(os.environ.get(name) for name in PROCESSOR)]
    told += [method if isinstance(method, Problem) else Codes(root, method).whole, record.executable]
    own = [root / name for name in RUNNERS]
    for path in (*own, *sorted((root / "methods/kit/weights").iterdir()), records.path_of(root, record.family, record.id)):
        told.append(hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _data(folder: Path | None) -> object:
    """What tells CIFAR-10 folders apart without reading them."""
    if folder is None:
        return "standin"
    with suppress(DataError, OSError):
        place = find(folder)
        return [(str(place.resolve()), name, (place / name).stat().st_size, (place / name).stat().st_mtime_ns) for name in BATCHES]
    return None


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return repr(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
    return f"{platform.machine()} {platform.processor()}"


def _version(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return ""


def _read(path: Path) -> list[str]:
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text())
        return [text for text in known if isinstance(text, str)] if isinstance(known, list) else []
    return []


def _path(root: Path, record: Record) -> Path:
    return root / "build/smoke" / f"{record.id}.json"


def was_green(root: Path, record: Record, key: str) -> bool:
    return key in _read(_path(root, record))


def keep(root: Path, record: Record, key: str) -> None:
    """Remember that a method was green. What cannot be written is run again next time."""
    path = _path(root, record)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps([*(other for other in _read(path) if other != key), key][-MOST:]))
