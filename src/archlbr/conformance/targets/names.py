"""Open a target by the name a command line gives: model, machine, kvm or recording, and a variant after a colon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archlbr.errors import InputError

if TYPE_CHECKING:
    from archlbr.conformance.target import Target
    from archlbr.vpmu.designs import Design

KVM = "/dev/kvm"
KINDS = "model[:DESIGN], machine[:DESIGN], kvm[:DEVICE] or recording:FILE"


def open_target(name: str) -> Target:
    """Return the target of a name; InputError when there is none, or it cannot be used at all."""
    kind, colon, variant = name.partition(":")
    if colon and not variant:
        raise InputError(f"--target {name}: nothing after the colon; write {KINDS}")
    if kind == "model":
        from archlbr.conformance.targets.model import ModelTarget

        return ModelTarget(_design(name, variant))
    if kind == "machine":
        from archlbr.conformance.targets.machine import MachineTarget

        return MachineTarget(_design(name, variant))
    if kind == "kvm":
        from archlbr.conformance.targets.kvm import KvmTarget

        return KvmTarget(variant or KVM)
    if kind == "recording" and variant:
        from archlbr.conformance.targets.recording import Recording

        return Recording(_text(variant), variant)
    raise InputError(f"--target {name}: no such target; write {KINDS}")


def _design(name: str, variant: str) -> Design:
    from archlbr.vpmu.designs import DEFAULT, DESIGNS

    if not variant:
        return DEFAULT
    if variant not in DESIGNS:
        raise InputError(f"--target {name}: no design {variant}; there are {', '.join(DESIGNS)}")
    return DESIGNS[variant]


def _text(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as refusal:
        raise InputError(f"{name}: {refusal.strerror}; name a recording that can be read") from refusal
    except UnicodeDecodeError as refusal:
        raise InputError(
            f"{name}: no recording (byte {refusal.start} is no text); make one with conform --record"
        ) from refusal
