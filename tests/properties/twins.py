"""The pure facility and its native twin, driven by one stream of bytes and compared after every operation.

A program is 16 bytes an operation, so that Hypothesis draws it at once and shrinks it by cutting and zeroing.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from archlbr.arch import msrs, xsave
from archlbr.arch.outcomes import DONE, GP, UD, Image, Value
from archlbr.lbr import actions, compiled
from archlbr.lbr.state import ARCH, State, initial, newest_first
from archlbr.lbr.step import step

OPERATION = 16
U = np.uint64
ONES = (1 << 64) - 1

ADDRESSES = (0x401000, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_1000, 0x1234, 0x8000_0000_0000, ONES, 0x40_0000_0000_0000)

ARCH_SERIES = (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO)
OLD_SERIES = (msrs.MSR_LASTBRANCH_FROM_IP, msrs.MSR_LASTBRANCH_TO_IP, msrs.MSR_LBR_INFO)
SINGLES = (
    msrs.IA32_LER_FROM_IP, msrs.IA32_LER_TO_IP, msrs.IA32_LER_INFO, msrs.IA32_PERF_CAPABILITIES, msrs.IA32_XSS,
    msrs.IA32_PERF_GLOBAL_STATUS, msrs.IA32_PERF_GLOBAL_STATUS_RESET, msrs.IA32_PERF_GLOBAL_STATUS_SET,
    msrs.IA32_DEBUGCTL, msrs.IA32_LBR_CTL, msrs.IA32_LBR_DEPTH, msrs.MSR_LBR_SELECT, msrs.MSR_LASTBRANCH_TOS,
)  # fmt: skip
EVENTS = (
    (actions.Pmi, compiled.pmi), (actions.Thaw, compiled.thaw), (actions.DebugException, compiled.debug_exception),
    (actions.Smi, compiled.smi), (actions.Rsm, compiled.rsm), (actions.Init, compiled.init),
    (actions.WarmReset, compiled.warm_reset), (actions.DeepCState, compiled.deep_c_state),
    (actions.ColdReset, compiled.cold_reset),
)  # fmt: skip


class Twins:
    """Both forms of one facility, side by side; `seen` counts what happened."""

    def __init__(self, facility):
        self.facility = facility
        self.state: State = initial(facility)
        self.words = compiled.new_words(facility)
        self.clock = 0
        self.area = bytes(xsave.AREA_SIZE)
        self.seen: Counter[str] = Counter()

    def run(self, program: bytes) -> int:
        count = 0
        for at in range(0, len(program) - OPERATION + 1, OPERATION):
            self.operate(program[at : at + OPERATION])
            self.compare()
            count += 1
        return count

    def compare(self) -> None:
        assert compiled.state_of(self.facility, self.words) == self.state

    def operate(self, code: bytes) -> None:
        what, rest = code[0], code[1:]
        if what < 150:
            self.branch(rest)
        elif what < 180:
            self.control(rest)
        elif what < 205:
            self.write(rest)
        elif what < 218:
            self.read(rest)
        elif what < 230:
            self.save()
        elif what < 244:
            self.restore(rest)
        else:
            self.event(rest)

    def branch(self, code: bytes) -> None:
        source = ADDRESSES[code[0] % 7] + code[1] & ONES
        target = ADDRESSES[code[2] % 7] + code[3] & ONES
        kind, cpl_from, cpl_to = code[4] % 8, (0, 3, 3, 1)[code[5] % 4], (0, 3, 3, 2)[code[6] % 4]
        self.clock = self.clock + (code[7], 0x10000, 0xFFFF, 1)[code[8] % 4] & ONES
        mispredicted, in_tx, abort = code[9] & 1, code[9] >> 1 & 1, code[9] >> 2 & 1
        event = code[10] % 4 == 1
        counts = code[11] | code[12] << 8 if code[10] & 8 else 0
        before = newest_first(self.facility, self.state), self.state.ler
        action = actions.Branch(
            source, target, kind, cpl_from, cpl_to, self.clock, mispredicted, in_tx, abort, int(event), counts
        )
        self.state, outcome = step(self.facility, self.state, action)
        flags = mispredicted | in_tx << 1 | abort << 2 | event << 3 | counts << 8
        compiled.record(self.words, U(source), U(target), U(kind), U(cpl_from), U(cpl_to), U(self.clock), U(flags))
        assert outcome == DONE
        after = newest_first(self.facility, self.state)
        flavour = "arch" if self.facility.format == ARCH else "legacy"
        if after == before[0]:
            self.seen[f"{flavour} passed"] += 1
        elif after[1] == before[0][0] and after[0].source:
            self.seen[f"{flavour} pushed"] += 1
        else:
            self.seen[f"{flavour} popped"] += 1
        self.seen[f"{flavour} masked"] += after[0].source == ONES and source != ONES
        self.seen[f"{flavour} ler"] += self.state.ler != before[1]
        self.seen["timed"] += after != before[0] and self.state.timed and bool(after[0].info >> 60 & 1)
        self.seen["counted"] += bool(self.state.pending)

    def control(self, code: bytes) -> None:
        """Write the controls with values that mostly are legal and mostly record."""
        bits = int.from_bytes(code[:8], "little")
        if code[10] % 8 == 0:
            self.wrmsr(msrs.IA32_XSS.index, 0x8000)
        if self.facility.format == ARCH:
            chance = code[8] % 8
            if chance == 0:
                self.wrmsr(msrs.IA32_LBR_DEPTH.index, 8 * (code[9] % 10))
            elif chance == 1:
                self.wrmsr(msrs.IA32_LBR_CTL.index, bits & 0x7F000F)
            elif chance == 2:
                self.wrmsr(msrs.IA32_DEBUGCTL.index, bits & 0x5800)
            else:
                ctl = (bits | 1) & self.facility.ctl_legal
                self.wrmsr(msrs.IA32_LBR_CTL.index, ctl | (0x380006 & self.facility.ctl_legal if chance > 5 else 0))
        elif code[8] % 4:
            self.wrmsr(msrs.IA32_DEBUGCTL.index, 1 | bits & 0x5800 & self.facility.debugctl_legal)
        else:
            self.wrmsr(msrs.MSR_LBR_SELECT.index, bits & (self.facility.select_legal if code[9] & 1 else 0x205))

    def index(self, code: bytes) -> int:
        pick = code[0] % 16
        if pick < 9:
            series = (OLD_SERIES if (self.facility.format == ARCH) == (code[1] % 16 == 0) else ARCH_SERIES)[pick % 3]
            x = (code[2] % self.state.depth, self.state.depth - 1, self.state.depth, code[2] % 32)[code[3] % 4]
            return series.index + min(x, series.count - 1)
        return SINGLES[code[2] % len(SINGLES)].index

    def write(self, code: bytes) -> None:
        index = self.index(code)
        bits = int.from_bytes(code[4:12], "little")
        address = ADDRESSES[code[4] % 7] + code[5] & ONES
        value = (address, address, bits, bits & 0x7F000F, 8 * (code[4] % 10), 1 << code[4] % 64, 0x8000, 1 << 58)
        self.wrmsr(index, value[code[12] % 8])

    def wrmsr(self, index: int, value: int) -> None:
        self.state, outcome = step(self.facility, self.state, actions.Wrmsr(index, value))
        assert compiled.wrmsr(self.words, U(index), U(value)) == (outcome == DONE)
        self.seen["wrmsr done" if outcome == DONE else "wrmsr #GP"] += 1

    def read(self, code: bytes) -> None:
        if code[0] % 4 == 0:
            self.read_stack()
            return
        index = self.index(code[1:])
        _, outcome = step(self.facility, self.state, actions.Rdmsr(index))
        ok, value = compiled.rdmsr(self.words, U(index))
        assert (Value(int(value)) if ok else GP) == outcome
        self.seen["rdmsr done" if ok else "rdmsr #GP"] += 1

    def read_stack(self) -> None:
        """Compare the bulk read with the RDMSR loop a profiler runs."""
        rows = []
        arch = self.facility.format == ARCH
        for x in range(self.state.depth):
            at = x if arch else (self.rdmsr(msrs.MSR_LASTBRANCH_TOS.index) - x) % self.state.depth
            row = [self.rdmsr(register.index + at) for register in (ARCH_SERIES if arch else OLD_SERIES)]
            if row[0] == 0:
                break
            rows.append(row)
        out = np.zeros(3 * self.state.depth, U)
        count = compiled.read_stack(self.words, out)
        assert out[: 3 * count].reshape(-1, 3).tolist() == rows
        self.seen["stack read"] += 1

    def rdmsr(self, index: int) -> int:
        ok, value = compiled.rdmsr(self.words, U(index))
        return int(value) if ok else 0

    def save(self) -> None:
        _, outcome = step(self.facility, self.state, actions.Xsaves(self.area))
        image = np.frombuffer(bytearray(self.area), np.uint8)
        status = compiled.xsaves(self.words, image, U(xsave.COMPONENT_BIT))
        if status:
            assert (status, outcome) == (6, UD)
            assert image.tobytes() == self.area
            return
        assert outcome == Image(image.tobytes())
        self.area = image.tobytes()
        self.seen["saved" if self.area[xsave.XSTATE_BV + 1] else "saved nothing"] += 1

    def restore(self, code: bytes) -> None:
        area = bytearray(self.area)
        if code[0] % 4 == 1:
            area[512 + (code[1] | code[2] << 8) % (xsave.AREA_SIZE - 512)] ^= 1 << code[3] % 8
        elif code[0] % 4 == 2:
            area[xsave.COMPONENT_OFFSET + xsave.DEPTH] = 8 * (code[1] % 5)
        elif code[0] % 4 == 3 and code[1] % 4 == 0:
            area[xsave.XSTATE_BV : xsave.XSTATE_BV + 16] = bytes(15) + b"\x80"
        before = self.state
        self.state, outcome = step(self.facility, self.state, actions.Xrstors(bytes(area)))
        status = compiled.xrstors(self.words, np.frombuffer(bytes(area), np.uint8), U(xsave.COMPONENT_BIT))
        assert outcome == {0: DONE, 6: UD, 13: GP}[status]
        self.seen[f"xrstors {status}"] += 1
        self.seen["xrstors changed"] += self.state != before

    def event(self, code: bytes) -> None:
        # Resets are rare, so that runs get somewhere.
        at = code[0] % len(EVENTS) if code[1] % 4 == 0 else code[0] % 6
        action, native = EVENTS[at]
        before = self.state
        self.state, outcome = step(self.facility, self.state, action())
        answer = native(self.words)
        if action is actions.Rsm:
            assert answer == (outcome == DONE)
        name = action.__name__
        if self.state != before:
            self.seen[f"{name} changed"] += 1
