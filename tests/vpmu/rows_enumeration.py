"""Rows 1 to 19, 96 to 99 and 104: what is offered, what a guest's CPUID comes to, PERF_CAPABILITIES."""

from __future__ import annotations

from archlbr.arch.cpuid import Leaf0A, Leaf0D1, Leaf0DComponent, Leaf1C
from archlbr.vpmu.actions import CpuidInstruction, FeatureMsr, SaveList, SetCpuid, SupportedCpuid
from tests.vpmu.parts import (
    ARCH_LBR,
    AVX,
    CTL,
    DEBUGCTL,
    DEPTH,
    FROM,
    INFO,
    LBR_XSS,
    LER_FROM,
    LER_INFO,
    LER_TO,
    OFF,
    PERF_CAPABILITIES,
    SELECT,
    TO,
    XSS,
    leaves,
    old_part,
    pmu,
)
from tests.vpmu.table import row

HIDDEN = {"entry_controls": 0, "exit_controls": 0}


def offered(v):
    cpuid = v.do(SupportedCpuid())
    return cpuid.leaf07.edx, tuple(cpuid.leaf1c)


def xss_offered(v):
    cpuid = v.do(SupportedCpuid())
    return cpuid.leaf0d1.ecx, tuple(cpuid.component(15))


@row("1 no controls, no LBRs", (0, (0, 0, 0, 0)))
def _(make, _design):
    return offered(make(HIDDEN, OFF))


@row("2 no controls, no XSS bit 15", (0, (0, 0, 0, 0), False))
def _(make, _design):
    v = make(HIDDEN, OFF)
    return (*xss_offered(v), XSS in v.do(SaveList()))


@row("3 no controls, LBR_FMT 0", (0, 0x3F))
def _(make, _design):
    return make(HIDDEN, OFF).do(FeatureMsr(PERF_CAPABILITIES)), make().do(FeatureMsr(PERF_CAPABILITIES))


@row("4 the entry control alone", ((0, (0, 0, 0, 0)), (0, (0, 0, 0, 0))))
def _(make, _design):
    return offered(make({"exit_controls": 0}, OFF)), offered(make({"entry_controls": 0}, OFF))


# Deviation by design: archlbr offers every depth of the leaf (decision 020), the series the highest.
@row("5 leaf 1CH", (ARCH_LBR, (0x0B, 7, 7, 0)), (ARCH_LBR, (0x08, 7, 7, 0)))
def _(make, _design):
    return offered(make())


@row("5 event logging is not offered", 0x00007, 0xF0007)
def _(make, _design):
    host = leaves((32,), leaf1c=Leaf1C(0x8, 7, 0xF0007, 0))
    return make(host_cpuid=host).do(SupportedCpuid()).leaf1c.ecx


@row("6 component 15", (LBR_XSS, (808, 0, 1, 0)))
def _(make, _design):
    return xss_offered(make())


@row("7 the save list", (True, True, True, 96, 3), (True, True, True, 0, 0))
def _(make, _design):
    listed = make().do(SaveList())
    records = [msr for msr in listed if any(block <= msr < block + 32 for block in (FROM, TO, INFO))]
    lers = [msr for msr in listed if msr in (LER_FROM, LER_TO, LER_INFO)]
    return XSS in listed, CTL in listed, DEPTH in listed, len(records), len(lers)


@row("7 DEBUGCTL is in the save list", True, False)
def _(make, _design):
    return DEBUGCTL in make().do(SaveList())


@row("7 the list is in the order to restore", (True, True), (True, False))
def _(make, _design):
    listed = make().do(SaveList())
    return listed.index(XSS) < listed.index(DEPTH), listed.index(DEPTH) < listed.index(CTL)


@row("8 an old host lists neither", (False, False))
def _(_make, design):
    listed = old_part(design).do(SaveList())
    return CTL in listed, DEPTH in listed


@row("9 another depth", ("ok", "#GP"), ("refused", 0))
def _(make, _design):
    v = make()
    return v.do(SetCpuid(leaves((24,)))), v.rd(CTL)


@row("10 several depths", ("ok", 0), ("refused", 0))
def _(make, _design):
    v = make()
    return v.do(SetCpuid(leaves((8, 16, 32)))), v.rd(CTL)


@row("11 a zero leaf 1CH without the feature", ("ok", "#GP"), ("refused", 0))
def _(make, _design):
    v = make()
    return v.do(SetCpuid(OFF._replace(leaf1c=Leaf1C()))), v.rd(CTL)


@row("12 the feature without leaf 1CH", ("ok", "#GP", "#GP"))
def _(make, _design):
    v = make()
    return v.do(SetCpuid(leaves(leaf1c=None))), v.rd(CTL), v.rd(FROM)


@row("13 without the feature every register faults", {"#GP"})
def _(make, _design):
    v = make(guest=OFF)
    registers = [CTL, DEPTH, LER_INFO, *range(FROM, FROM + 32), *range(TO, TO + 32), *range(INFO, INFO + 32)]
    return {v.rd(msr) for msr in registers} | {v.wr(msr, 0) for msr in registers}


@row("14 userspace reads 0", (0, 0))
def _(make, _design):
    v = make(guest=OFF)
    return v.hi(CTL), v.hi(DEPTH)


@row("15 userspace writes CTL", ("ok", "refused"))
def _(make, _design):
    v = make(guest=OFF)
    return v.hi(CTL, 0), v.hi(CTL, 1)


@row("16 userspace writes DEPTH", ("ok", "refused"))
def _(make, _design):
    v = make(guest=OFF)
    return v.hi(DEPTH, 0), v.hi(DEPTH, 32)


@row("17 legacy LBRs on an architectural host", ("#GP", "ok", 0))
def _(make, _design):
    v = make({"capabilities": 5}, OFF)
    return v.rd(SELECT), v.wr(DEBUGCTL, 1), v.rd(DEBUGCTL)


@row("18 architectural LBRs on an old host", ("#GP", "#GP", "#GP"))
def _(_make, design):
    v = old_part(design, leaves(leaf0a=pmu(4)))
    return v.rd(CTL), v.rd(DEPTH), v.rd(FROM)


@row("35 a guest leaf richer than the host's", ("#GP", 0, "ok"), ("fail 33", 6, "fail 33"))
def _(make, _design):
    host = leaves((32,), leaf1c=Leaf1C(0x8, 6, 7, 0))
    v = make(guest=leaves(), host_cpuid=host)
    v.enter()
    return v.wr(CTL, 6), v.hi(CTL), v.wr(CTL, 0) if v.hi(CTL) == 0 else v.enter()


@row("65 XSS for a guest without the LBRs", "#GP", "ok")
def _(make, _design):
    return make(guest=OFF).wr(XSS, LBR_XSS)


@row("63 CPUID.0DH.1 without XSAVES", ("#GP", (3, 0, LBR_XSS, 0)), ("#GP", (3, 0, 0, 0)))
def _(make, _design):
    # With XSAVEC EBX is computed: 576 bytes and nothing else, as XCR0 is 1.
    v = make(guest=leaves(leaf0d1=Leaf0D1(0x3, 0, LBR_XSS, 0)))
    eax, ebx, ecx, edx = v.do(CpuidInstruction(0xD, 1))
    return v.wr(XSS, LBR_XSS), (eax, ebx - 576, ecx, edx)


@row("bug 1 component 15 announced with size 0", "#GP", 0)
def _(make, _design):
    return make(guest=leaves(components=(AVX, (15, Leaf0DComponent(0, 0, 1, 0))))).rd(CTL)


@row("bug 1 component 15 described and not announced", "#GP", 0)
def _(make, _design):
    return make(guest=leaves(leaf0d1=Leaf0D1(0xF, 0, 0, 0))).rd(CTL)


@row("bug 1 no component 15 at all: MSRs alone", (0, "#GP"), (0, "ok"))
def _(make, _design):
    v = make(guest=leaves(leaf0d1=Leaf0D1(0xF, 0, 0, 0), components=(AVX,)))
    return v.rd(CTL), v.wr(XSS, LBR_XSS)


@row("82 a 32-bit guest", ("#GP",), (0,))
def _(make, _design):
    return (make(guest=leaves(long_mode=0)).rd(CTL),)


@row("96 CPUID after the first run", ("ok", "refused", "ok"))
def _(make, _design):
    v = make()
    v.run()
    return v.do(SetCpuid(leaves())), v.do(SetCpuid(OFF)), v.do(SetCpuid(leaves()))


@row("97 on, then off", ("ok", "ok", "#GP", "#GP", 0, 0))
def _(make, _design):
    v = make()
    outcomes = v.hi(CTL, 7), v.do(SetCpuid(OFF))
    return *outcomes, v.rd(CTL), v.rd(FROM), v.state.owned, v.state.vmcs.passthrough


@row("98 enable_pmu=0", ("#GP", "#GP", "#GP", 0))
def _(make, _design):
    v = make({"pmu": 0})
    return v.rd(CTL), v.rd(DEPTH), v.wr(FROM, 0), v.state.event


@row("98 PMU version 0", ("#GP", "#GP", 0))
def _(make, _design):
    v = make(guest=leaves(leaf0a=Leaf0A()))
    return v.rd(CTL), v.rd(FROM), v.state.event


@row("99 LBR_FMT 0 with the feature", ("ok", 0, 0))
def _(make, _design):
    v = make()
    return v.hi(PERF_CAPABILITIES, 0), v.rd(PERF_CAPABILITIES), v.rd(CTL)


@row("99 LBR_FMT 0 on an old host", ("ok", "#GP"), ("ok", 0))
def _(_make, design):
    v = old_part(design)
    return v.hi(PERF_CAPABILITIES, 0), v.rd(SELECT)


@row("104 another vendor's processor", (0, (0, 0, 0, 0)), (ARCH_LBR, (0x08, 7, 7, 0)))
def _(make, _design):
    return offered(make({"vendor": "amd"}, OFF))


@row("PERF_CAPABILITIES.LBR_FMT", {0: "ok", 0x3F: "ok"})
def _(make, _design):
    taken = {}
    for value in range(64):
        if make().hi(PERF_CAPABILITIES, value) == "ok":
            taken[value] = "ok"
    return taken


@row("PERF_CAPABILITIES, every other bit", {"refused"})
def _(make, _design):
    return {make().hi(PERF_CAPABILITIES, 1 << bit) for bit in range(6, 64)}


@row("PERF_CAPABILITIES is fixed after the first run", ("refused", "ok", "#GP", 0x3F))
def _(make, _design):
    v = make()
    v.run()
    return (
        v.hi(PERF_CAPABILITIES, 0),
        v.hi(PERF_CAPABILITIES, 0x3F),
        v.wr(PERF_CAPABILITIES, 0),
        v.rd(PERF_CAPABILITIES),
    )
