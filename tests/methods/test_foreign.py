"""Every method on networks of torchvision and timm, where these are installed: it works, or refuses by name.

Slow: `pytest -m slow tests/methods/test_foreign.py`. Weights are random; nothing is downloaded.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import nn

from catalog import load
from methods.kit.zoo import Animal
from scripts.evidence import source
from scripts.evidence.networks import FAILS
from scripts.running.networks import attempt
from tests.toys import ROOT

TORCHVISION = ("resnet18", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf")
TIMM = ("resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224", "mixer_s32_224", "ghostnet_050", "resnext26ts")
SMALL = {"vit_tiny_patch16_224": {"img_size": 64}, "mixer_s32_224": {"img_size": 64}}


def of_torchvision(name: str) -> nn.Module:
    made: nn.Module = importlib.import_module("torchvision.models").get_model(name, weights=None, num_classes=10)
    return made


def of_timm(name: str) -> nn.Module:
    made: nn.Module = importlib.import_module("timm").create_model(name, num_classes=10, **SMALL.get(name, {}))
    return made


def there(library: str, build: Callable[[str], Any], names: tuple[str, ...]) -> list[Any]:
    mark = pytest.mark.skipif(importlib.util.find_spec(library) is None, reason=f"{library} is not installed")
    return [pytest.param(partial(build, name), id=f"{library}-{name}", marks=mark) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("id", source.methods(ROOT))
@pytest.mark.parametrize("build", there("torchvision", of_torchvision, TORCHVISION) + there("timm", of_timm, TIMM))
@pytest.mark.filterwarnings("ignore")
def test_it_works_or_refuses_by_name(build: Callable[[], nn.Module], id: str) -> None:
    record = load(ROOT / "catalog").entries[id]
    method = importlib.import_module(f"methods.{record.family}.{id}")
    tried = attempt(method, record, id, Animal("somebody else's", build, (3, 64, 64)))
    assert tried.outcome != FAILS, tried.said
