"""Models too large for most machines, by their published shapes, and the devices that they may run on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hiddencost import models
from hiddencost.errors import UserError, nearest
from hiddencost.models import ModelSpec
from hiddencost.records import STACK

SHAPES = (
    ModelSpec(
        "llama3_8b",
        "Llama 3 8B: 32 blocks, 4096 wide (Table 3 of arXiv 2407.21783)",
        32,
        None,
        models.decoder(32, 4096, 32, 8, 14336, vocabulary=128_256),
    ),
    ModelSpec(
        "llama3_70b",
        "Llama 3 70B: 80 blocks, 8192 wide (Table 3 of arXiv 2407.21783)",
        80,
        None,
        models.decoder(80, 8192, 64, 8, 28672, vocabulary=128_256),
    ),
)
"""For forecasts alone: they are never loaded whole."""


def find(name: str) -> ModelSpec:
    """The spec of a shape or of a model. Raises UserError with the nearest right name."""
    shape = next((spec for spec in SHAPES if spec.name == name), None)
    if shape:
        return shape
    known = [spec.name for spec in (*models.MODELS, *SHAPES)]
    if ":" not in name and name.partition(STACK)[0] not in known:
        raise UserError(f"unknown model '{name}'{nearest(name, known)}")
    return models.find(name)


@dataclass(frozen=True)
class Device:
    """An accelerator. memory_bytes: as its maker states it. link_bytes: a second, one way, of the link to its
    host."""

    name: str
    memory_bytes: float
    link_bytes: float


DEVICES = (
    Device("t4", 16e9, 16e9),
    Device("l4", 24e9, 32e9),
    Device("a100_40gb", 40e9, 32e9),
    Device("a100_80gb", 80e9, 32e9),
    Device("h100", 80e9, 64e9),
    Device("h200", 141e9, 64e9),
)
"""From NVIDIA's data sheets. The link is PCIe (generation 3, 4 or 5) with 16 lanes: half of what a sheet
states for both ways together."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)", re.IGNORECASE)
_UNITS = {"gb": 1e9, "gib": 2.0**30, "mb": 1e6, "mib": 2.0**20}


def device(name: str) -> Device:
    """The device of that name. Raises UserError."""
    found = next((one for one in DEVICES if one.name == name), None)
    if not found:
        names = [one.name for one in DEVICES]
        raise UserError(f"unknown device '{name}'{nearest(name, names)}")
    return found


def size_bytes(text: str) -> float:
    """Bytes that a text such as 80GB or 24GiB states. Raises UserError."""
    found = _SIZE.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise UserError(f"--memory '{text}': expected a size, as 80GB or 24GiB")
    return float(found[1]) * _UNITS[found[2].lower()]
