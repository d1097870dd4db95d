"""One processor part under test, in the words of the manual: the pure facility and the native one answer alike."""

from __future__ import annotations

import struct

import numpy as np

from archlbr.arch.outcomes import DONE, GP, UD, Image, Value
from archlbr.lbr import actions, compiled
from archlbr.lbr.state import Facility, initial
from archlbr.lbr.step import step

# Register numbers, kinds and rings as the tests write them; none of them comes from the code under test.
CTL, DEPTH, INFO, FROM, TO = 0x14CE, 0x14CF, 0x1200, 0x1500, 0x1600
LER_FROM, LER_TO, LER_INFO = 0x1DD, 0x1DE, 0x1E0
DEBUGCTL, PERF_CAPABILITIES, XSS = 0x1D9, 0x345, 0xDA0
STATUS, STATUS_RESET, STATUS_SET = 0x38E, 0x390, 0x391
SELECT, TOS, OLD_FROM, OLD_TO, OLD_INFO = 0x1C8, 0x1C9, 0x680, 0x6C0, 0xDC0
COND, REL_JMP, IND_JMP, REL_CALL, IND_CALL, RET, OTHER = range(1, 8)
KERNEL, USER = 0, 3
ONES = 0xFFFF_FFFF_FFFF_FFFF
ALL = 0x7F0007
ARCH_STACK, OLD_STACK = (FROM, TO, INFO), (OLD_FROM, OLD_TO, OLD_INFO)
U = np.uint64


def image(ctl=0, depth=32, ler=(0, 0, 0), entries=(), *, saved=0x8000, compacted=0x8000_0000_0000_8000) -> bytes:
    """Return an XSAVE area of component 15 alone, put together by hand."""
    area = bytearray(1384)
    struct.pack_into("<QQ", area, 512, saved, compacted)
    struct.pack_into("<QQQQQ", area, 576, ctl, depth, *ler)
    for x, entry in enumerate(entries):
        struct.pack_into("<QQQ", area, 576 + 40 + 24 * x, *entry)
    return bytes(area)


class Pure:
    """The pure step."""

    def __init__(self, facility: Facility):
        self.facility = facility
        self.state = initial(facility)

    def do(self, action):
        self.state, outcome = step(self.facility, self.state, action)
        return outcome

    def rd(self, msr, cpl=0):
        """Return the value, or None for #GP."""
        outcome = self.do(actions.Rdmsr(msr, cpl))
        if isinstance(outcome, Value):
            return outcome.value
        assert outcome == GP
        return None

    def wr(self, msr, value, cpl=0):
        """Return True when written, False for #GP."""
        outcome = self.do(actions.Wrmsr(msr, value, cpl))
        assert outcome in (DONE, GP)
        return outcome == DONE

    def branch(self, kind, source=0x1000, target=0x2000, cpl_from=USER, cpl_to=USER, clock=0, **more):
        assert self.do(actions.Branch(source, target, kind, cpl_from, cpl_to, clock, **more)) == DONE

    def event(self, name):
        """Return 'done' or '#UD'."""
        return {DONE: "done", UD: "#UD"}[self.do(getattr(actions, name)())]

    def xsaves(self, area=bytes(1384), rfbm=0x8000):
        outcome = self.do(actions.Xsaves(area, rfbm))
        if isinstance(outcome, Image):
            return outcome.content
        return {UD: "#UD", GP: "#GP"}[outcome]

    def xrstors(self, area, rfbm=0x8000):
        return {DONE: "done", UD: "#UD", GP: "#GP"}[self.do(actions.Xrstors(area, rfbm))]

    def stack(self):
        """Return the entries as a profiler reads them: newest first, up to FROM = 0, registers that exist."""
        old = self.facility.format < 8
        depth = self.facility.max_depth if old else self.rd(DEPTH)
        top = self.rd(TOS) if old else 0
        rows = []
        for x in range(depth):
            at = (top - x) % depth if old else x
            row = tuple(self.rd(msr + at) for msr in (OLD_STACK if old else ARCH_STACK))
            if row[0] == 0:
                break
            rows.append(row)
        return rows

    def froms(self):
        return [row[0] for row in self.stack()]


class Native(Pure):
    """The compiled facility behind the same words."""

    def __init__(self, facility: Facility):
        self.facility = facility
        self.words = compiled.new_words(facility)

    def rd(self, msr, cpl=0):
        assert cpl == 0
        ok, value = compiled.rdmsr(self.words, U(msr))
        return int(value) if ok else None

    def wr(self, msr, value, cpl=0):
        assert cpl == 0
        return bool(compiled.wrmsr(self.words, U(msr), U(value)))

    def branch(
        self, kind, source=0x1000, target=0x2000, cpl_from=USER, cpl_to=USER, clock=0,
        mispredicted=0, in_tx=0, abort=0, event=0, counts=0,
    ):  # fmt: skip
        flags = mispredicted | in_tx << 1 | abort << 2 | event << 3 | counts << 8
        numbers = (source, target, kind, cpl_from, cpl_to, clock, flags)
        compiled.record(self.words, *(U(number) for number in numbers))

    def event(self, name):
        native = {
            "Pmi": compiled.pmi, "Thaw": compiled.thaw, "DebugException": compiled.debug_exception,
            "Smi": compiled.smi, "Rsm": compiled.rsm, "Init": compiled.init, "WarmReset": compiled.warm_reset,
            "ColdReset": compiled.cold_reset, "DeepCState": compiled.deep_c_state,
        }[name]  # fmt: skip
        return "#UD" if native(self.words) is False else "done"

    def xsaves(self, area=bytes(1384), rfbm=0x8000):
        buffer = np.frombuffer(bytearray(area), np.uint8)
        status = compiled.xsaves(self.words, buffer, U(rfbm))
        return buffer.tobytes() if status == 0 else {6: "#UD", 13: "#GP"}[status]

    def xrstors(self, area, rfbm=0x8000):
        status = compiled.xrstors(self.words, np.frombuffer(area, np.uint8), U(rfbm))
        return {0: "done", 6: "#UD", 13: "#GP"}[status]
