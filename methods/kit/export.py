"""A network handed on: as a program of torch.export, as an ONNX file, as a pickle. Needs the extra `export`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import pickle
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ExportError(ValueError):
    """Why a network cannot be exported, in one line."""


def there() -> bool:
    """Whether the packages of the extra are installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


@contextlib.contextmanager
def _quiet(model: nn.Module, what: str) -> Iterator[None]:
    """What exporters print and warn of is nobody's business; what they raise is one line. Raises `ExportError`."""
    disabled = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            yield
    except Exception as problem:
        raise ExportError(f"{type(model).__name__} cannot be {what}: {type(problem).__name__}: {_first(problem)}") from problem
    finally:
        logging.disable(disabled)


def _first(problem: Exception) -> str:
    return next((line.strip()[:200] for line in str(problem).splitlines() if line.strip()), "no reason given")


def program(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The network as `torch.export` writes it down, for images of this shape (N, C, H, W). Raises `ExportError`."""
    with _quiet(model, "exported"), torch.no_grad():
        return torch.export.export(model.eval(), (images,), strict=False)


def onnx(model: nn.Module, images: Tensor) -> bytes:
    """The network as an ONNX file, for images of this shape (N, C, H, W). Raises `ExportError`."""
    with _quiet(model, "written as ONNX"), torch.no_grad():
        written = torch.onnx.export(model.eval(), (images,), dynamo=True, verbose=False)
        assert written is not None
        return bytes(written.model_proto.SerializeToString())


def run_onnx(file: bytes, images: Tensor) -> Tensor:
    """What onnxruntime answers with the file. Raises `ExportError`."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(file, settings)
        answer = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    except Exception as problem:  # its errors have no class in common
        raise ExportError(f"onnxruntime cannot run it: {_first(problem)}") from problem
    return torch.from_numpy(np.asarray(answer))


def needs(model: nn.Module) -> set[str]:
    """The packages that somebody who loads the pickled network must have. Raises `ExportError`."""
    found = set[str]()

    class Seen(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found.add(module.partition(".")[0])
            return super().find_class(module, name)

    with _quiet(model, "pickled"):
        Seen(io.BytesIO(pickle.dumps(model))).load()
    return found - sys.stdlib_module_names
