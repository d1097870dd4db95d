"""What holds whatever happens: random runs of guest, host and userspace against `archlbr`.

Host records carry addresses with bit 40 set, a stranger's vCPU bit 41, this guest's neither: no read of the guest's and
no XSAVES may ever show one of another's.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archlbr.lbr.actions import Branch, Rdmsr, Rsm, Smi, Wrmsr
from archlbr.vpmu.actions import (
    Deny,
    Grant,
    HostBranch,
    HostControl,
    InjectDebug,
    Release,
    SchedIn,
    SchedOut,
    VmEntry,
    VmExit,
)
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from archlbr.vpmu.interception import guest_ctl
from archlbr.vpmu.step import step
from tests.vpmu.parts import ALL, CTL, DEBUGCTL, DEPTH, FROM, LBR_XSS, TO, XSS, Vcpu, leaves

HOST, OTHER = 1 << 40, 1 << 41
checks = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
moves = st.lists(st.tuples(st.integers(0, 17), st.integers(0, 31)), min_size=40, max_size=120)


def move(v, kind, x, other, seen):
    """Do one random thing; collect every value the guest sees."""
    loaded, running = v.state.loaded, v.state.running
    session = v.state.lbr.ctl & 1 and not running
    match kind:
        case 0:
            v.wr(CTL, ALL if x & 1 else ALL & ~1) if loaded else None
        case 1:
            v.wr(DEPTH, (8, 16, 32)[x % 3]) if loaded else None
        case 2 | 3:
            v.do(Branch(0x1000 + x, 0x2000, 1)) if loaded and running else None
        case 4:
            seen.update([v.rd(FROM + x), v.rd(TO + x)] if loaded else [])
        case 5:
            v.wr(FROM + x, 0x3000 + x) if loaded else None
        case 6:
            image = v.xsaves() if loaded else {}
            seen.update(image.get("froms", []))
        case 7:
            v.xrstors(ALL, (8, 16, 32)[x % 3], (0x4000, 0x4008, 0)) if loaded else None
        case 8:
            v.do(VmEntry()) if loaded and not running else None
        case 9:
            v.do(VmExit())
        case 10:
            v.do(Release())
            v.do(HostControl(ALL))
            v.do(HostBranch(Branch(HOST + x, HOST, 1)))
        case 11:
            v.do(HostControl(0))
            v.do(Grant())
        case 12:
            v.do(HostBranch(Branch(HOST + x, HOST, 1))) if session else None
        case 13:
            if loaded and not session:
                v.do(SchedOut())
                other.state = other.state._replace(lbr=v.state.lbr)
                other.do(SchedIn())
                other.wr(CTL, ALL)
                other.run((OTHER + x, OTHER))
                other.do(SchedOut())
                v.state = v.state._replace(lbr=other.state.lbr)
                v.do(SchedIn())
        case 14:
            seen.add(v.hi(FROM + x % 8))
        case 15:
            v.do(InjectDebug())
        case 16:
            v.do(Smi() if x & 1 else Rsm()) if loaded else None
        case 17:
            v.do(Deny()) if not v.state.owned else None


def run(design, steps, tally):
    guest = leaves((8, 16, 32)) if not design.highest_depth_only else leaves()
    v, other = Vcpu(design, guest=guest), Vcpu(design, guest=guest)
    v.wr(XSS, LBR_XSS)
    seen = set()
    for kind, x in steps:
        move(v, kind, x, other, seen)
        tally["owned"] += v.state.owned
        tally["asked and not owned"] += v.state.event & ~v.state.owned
        tally["narrow"] += v.state.owned and v.state.lbr.depth == 8
        tally["running and not owned"] += v.state.running and not v.state.owned
        tally["records of another's"] += not v.state.owned and any(entry.source for entry in v.state.lbr.stack)
        yield v, seen


def test_no_record_of_another_reaches_the_guest():
    tally = Counter()

    @checks
    @given(moves)
    def holds(steps):
        for _v, seen in run(ARCHLBR, steps, tally):
            assert not [value for value in seen if isinstance(value, int) and value & (HOST | OTHER)]

    holds()
    assert min(tally.values()) > 200, tally


def test_the_processor_s_depth_is_its_owner_s():
    tally = Counter()

    @checks
    @given(moves)
    def holds(steps):
        for v, _seen in run(ARCHLBR, steps, tally):
            lbr = v.state.lbr
            assert lbr.depth == (v.state.guest.depth if v.state.owned else 32)
            assert len(lbr.stack) == lbr.depth
            assert v.state.vmcs.passthrough == (v.state.guest.depth if v.state.owned else 0)
            assert v.state.vmcs.xss_exiting == (0 if v.state.owned else LBR_XSS)
            if v.state.running and not v.state.owned:
                assert lbr.ctl == 0
            if not v.state.owned:
                assert not [entry for entry in lbr.stack if entry.source and not entry.source & (HOST | OTHER)]

    holds()
    assert min(tally.values()) > 200, tally


def test_an_exit_and_an_entry_change_nothing():
    tally = Counter()

    @checks
    @given(moves)
    def holds(steps):
        for v, _seen in run(ARCHLBR, steps, Counter()):
            if v.state.running:
                before, ctl = v.state, guest_ctl(ARCHLBR, v.state)
                tally["owned"] += before.owned
                tally["not owned"] += not before.owned
                tally["recording"] += ctl & 1
                tally["not recording"] += ~ctl & 1
                tally["records"] += any(entry.source for entry in before.lbr.stack)
                v.exit()
                assert (v.state.guest.ctl, v.state.lbr.ctl) == (ctl, before.kept.ctl)
                v.enter()
                after = v.state
                same = {"lbr", "running", "owned", "loaded", "event", "pmu", "nested"}
                assert {name for name in same if getattr(before, name) != getattr(after, name)} == set()
                assert guest_ctl(ARCHLBR, after) == ctl

    holds()
    assert min(tally.values()) > 200, tally


def test_a_register_access_from_outside_is_a_whole_run():
    accesses = [Rdmsr(FROM + 1), Rdmsr(CTL), Wrmsr(CTL, ALL), Wrmsr(CTL, 6), Wrmsr(FROM, 0x77), Wrmsr(DEPTH, 8),
                Wrmsr(XSS, 0), Wrmsr(DEBUGCTL, 1 << 11), Wrmsr(CTL, 1 << 5), Rdmsr(0x38E)]  # fmt: skip
    tally = Counter()

    @checks
    @given(moves)
    def holds(steps):
        for v, _seen in run(ARCHLBR, steps[:30], Counter()):
            if v.state.running or not v.state.loaded:
                continue
            tally["owned"] += v.state.owned
            tally["not owned"] += not v.state.owned
            tally["recording"] += v.state.guest.ctl & 1
            tally["not recording"] += ~v.state.guest.ctl & 1
            for access in accesses:
                directly, outcome = step(ARCHLBR, v.platform, v.state, access)
                inside, _ = step(ARCHLBR, v.platform, v.state, VmEntry())
                inside, expected = step(ARCHLBR, v.platform, inside, access)
                outside, _ = step(ARCHLBR, v.platform, inside, VmExit())
                assert outcome == expected
                # The fields stay as the last entry found them.
                assert directly._replace(vmcs=outside.vmcs) == outside
                tally["changed"] += directly != v.state

    holds()
    assert min(tally.values()) > 200, tally


def test_series_v2_shows_the_same_test_a_leak():
    leaks = Counter()

    @checks
    @given(moves)
    def leaky(steps):
        for _v, seen in run(SERIES_V2, steps, Counter()):
            leaks["host"] += any(isinstance(value, int) and value & HOST for value in seen)
            leaks["other"] += any(isinstance(value, int) and value & OTHER for value in seen)

    leaky()
    assert leaks["host"] > 0
    assert leaks["other"] > 0
