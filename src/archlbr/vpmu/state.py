"""What the hypervisor keeps of one vCPU's LBRs beside the registers themselves.

`host` holds it next to the facility's state. So far it is ownership alone: whether the vCPU's accesses reach the
hardware.
"""

from __future__ import annotations

from typing import NamedTuple


class Vpmu(NamedTuple):
    """owned: 1 while the guest owns the LBRs and FROM, TO and INFO pass through."""

    owned: int = 1
