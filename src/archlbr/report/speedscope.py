"""Call stacks as a speedscope file: speedscope.app opens it, and so do the editors that carry it.

Fed by `stacks`. Format: speedscope's file-format-schema.json (a "sampled" profile a thread; a weight is a number of
samples).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archlbr.report.stacks import Stacks

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def render(stacks: Stacks, name: str, exporter: str) -> str:
    """Return the JSON document."""
    profiles = []
    for tid in sorted({tid for tid, _ in stacks.stacks}):
        rows = sorted((frames, many) for (owner, frames), many in stacks.stacks.items() if owner == tid)
        weights = [many for _, many in rows]
        profiles.append(
            {
                "type": "sampled",
                "name": f"{stacks.threads.get(tid, 'thread')} {tid}",
                "unit": "none",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": [list(frames) for frames, _ in rows],
                "weights": weights,
            }
        )
    frames = [{"name": place.frame, **({"file": place.file} if place.symbol else {})} for place in stacks.frames]
    document = {
        "$schema": SCHEMA,
        "shared": {"frames": frames},
        "profiles": profiles,
        "name": name,
        "activeProfileIndex": 0,
        "exporter": exporter,
    }
    return json.dumps(document)
