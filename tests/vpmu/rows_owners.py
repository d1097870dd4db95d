"""Rows 26, 42, 44, 45, 48 to 54, 70 to 76 and 100 to 102: the host, other vCPUs, userspace, another host."""

from __future__ import annotations

from archlbr.lbr.actions import Branch
from archlbr.vpmu.actions import Close, Grant, HostBranch, HostControl, Release, SchedIn, SchedOut, VcpuLoad, VcpuPut
from archlbr.vpmu.snapshot import restore, save
from tests.vpmu.parts import ALL, CTL, DEBUGCTL, DEPTH, FROM, LBR_XSS, TO, XSS, host_records, leaves
from tests.vpmu.table import row


@row("26 DEPTH while the host owns", ("ok", [0x10, 0], 0), ("ok", [0, 0], 0))
def _(make, _design):
    v = make()
    host_records(v)
    return v.wr(DEPTH, 32), v.hardware[:2], v.rd(FROM)


# In series v2 the first slice gives the event up; the records then lie in the processor for anyone until they are gone.
@row("42 records over the host's time slices", ([0x10, 0x20],) * 3, ([0x10, 0x20], [0x10, 0x20], [0, 0]))
def _(make, _design):
    v = make()
    v.wr(CTL, ALL)
    v.run((0x20, 0x30), (0x10, 0x18))
    v.wr(CTL, ALL & ~1)
    seen = [v.froms(2)]
    for _slice in range(2):
        v.do(SchedOut())
        v.state = v.state._replace(lbr=make().state.lbr)
        v.do(SchedIn())
        seen.append(v.froms(2))
    return tuple(seen)


@row("44 reading while the host owns", (0, 0x77, [0x10]), (0x10, 0x77, [0x10]))
def _(make, _design):
    v = make()
    host_records(v)
    first = v.rd(FROM)
    v.wr(FROM + 1, 0x77)
    return first, v.rd(FROM + 1), v.hardware[:1]


@row("45 writing while the host owns", ("ok", [0x10, 0]), ("ok", [0x77, 0]))
def _(make, _design):
    v = make()
    host_records(v)
    return v.wr(FROM, 0x77), v.hardware[:2]


@row("48 the host takes the LBRs", (32, 0, 0, "ok"))
def _(make, _design):
    v = make()
    v.wr(CTL, ALL)
    v.enter()
    before = v.state.vmcs.passthrough
    v.do(Release())
    return before, v.state.vmcs.passthrough, v.state.owned, v.exit()


@row("49 and gives them back", ([0, 0], [0x44, 0]), ([0x10, 0x44], [0x10, 0x44]))
def _(make, _design):
    # What the guest recorded is there again, what the host recorded is not.
    v = make()
    v.wr(CTL, ALL)
    v.run((0x44, 0x48))
    host_records(v)
    between = v.hardware[:2] if v.state.owned else v.froms(2)
    v.do(Grant())
    return [0 if source == 0x44 else source for source in between] if v.design.keeps_records else between, v.froms(2)


@row("50 two vCPUs on one processor", ([0, 0], [0xB0, 0], [0xA0, 0]), ([0, 0], [0xB0, 0], [0xA0, 0]))
def _(make, _design):
    a, b = make(), make()
    a.wr(CTL, ALL)
    a.run((0xA0, 0xA8))
    a.do(SchedOut())
    b.state = b.state._replace(lbr=a.state.lbr)
    b.wr(CTL, ALL)
    first = b.froms(2)
    b.run((0xB0, 0xB8))
    second = b.froms(2)
    b.do(SchedOut())
    a.state = a.state._replace(lbr=b.state.lbr)
    a.do(SchedIn())
    return first, second, a.froms(2)


@row("50 two vCPUs on one thread", ([0, 0], [0xB0, 0], [0xA0, 0]), ([0, 0], [0xB0, 0], [0xB0, 0]))
def _(make, _design):
    a, b = make(), make()
    a.wr(CTL, ALL)
    a.run((0xA0, 0xA8))
    a.do(VcpuPut())
    b.state = b.state._replace(lbr=a.state.lbr)
    b.wr(CTL, ALL)
    first = b.froms(2)
    b.run((0xB0, 0xB8))
    second = b.froms(2)
    b.do(VcpuPut())
    a.state = a.state._replace(lbr=b.state.lbr)
    a.do(VcpuLoad())
    return first, second, a.froms(2)


@row("50 a vCPU that asks for nothing", ([0, 0],), ([0xA0, 0],))
def _(make, _design):
    a, b = make(), make()
    a.wr(CTL, ALL)
    a.run((0xA0, 0xA8))
    a.do(SchedOut())
    b.state = b.state._replace(lbr=a.state.lbr)
    return (b.froms(2),)


@row("51 a host session over a guest without LBRs", (ALL, [0x30, 0x10]), (0, [0x10, 0]))
def _(make, _design):
    v = make(guest=leaves(leaf1c=None))
    v.do(HostControl(ALL))
    v.do(HostBranch(Branch(0x10, 0x18, 1)))
    v.run((0x99, 0x9A))
    v.do(HostBranch(Branch(0x30, 0x38, 1)))
    return v.state.lbr.ctl, v.hardware[:2]


@row("52 a host session over a guest with LBRs", (ALL, 7), (0, 7))
def _(make, _design):
    v = make()
    v.do(Release())
    v.do(HostControl(ALL))
    v.wr(CTL, 7)
    v.run((0x99, 0x9A))
    return v.state.lbr.ctl, v.rd(CTL)


@row("53 no guest address in the host's records", [0x10, 0], [0x99, 0x10])
def _(make, _design):
    v = make()
    v.do(Release())
    v.do(HostControl(ALL))
    v.do(HostBranch(Branch(0x10, 0x18, 1)))
    v.wr(CTL, ALL)
    v.run((0x99, 0x9A))
    return v.hardware[:2]


@row("54 LBREn without ownership", (0, ALL, [0, 0]), (ALL, ALL, [0x99, 0]))
def _(make, _design):
    v = make()
    v.do(Release())
    v.wr(CTL, ALL)
    v.enter()
    loaded = v.state.lbr.ctl
    v.branch(0x99, 0x9A)
    return loaded, v.rd(CTL), v.hardware[:2]


@row("entry loads, exit clears, the host's value stays", (5, 0, 5, 0, ALL), (5, 0, 5, 0, 0))
def _(make, _design):
    v = make()
    v.wr(CTL, 5)
    v.enter()
    loaded = v.state.lbr.ctl
    v.exit()
    cleared, readable = v.state.lbr.ctl, v.hi(CTL)
    w = make(guest=leaves(leaf1c=None))
    w.do(HostControl(ALL))
    w.enter()
    inside = w.state.lbr.ctl
    w.exit()
    return loaded, cleared, readable, inside, w.state.lbr.ctl


@row("a session that starts while the guest owns", (0, ALL, [0x30, 0], [0x44, 0]), (1, ALL, [0x30, 0x44], [0x30, 0x44]))
def _(make, _design):
    v = make()
    v.wr(CTL, ALL)
    v.run((0x44, 0x48))
    v.do(HostControl(ALL))
    owned, ctl = v.state.owned, v.state.lbr.ctl
    v.do(HostBranch(Branch(0x30, 0x38, 1)))
    recorded = v.hardware[:2]
    v.do(HostControl(0))
    return owned, ctl, recorded, v.froms(2)


@row("a session ends: who has the LBRs then", (1, 0, 1), (1, 0, 0))
def _(make, _design):
    v, w = make(), make()
    for each in (v, w):
        each.wr(CTL, ALL)
        each.do(HostControl(ALL))
    w.do(Release())
    v.do(HostControl(0))
    w.do(HostControl(0))
    between = w.state.owned
    w.do(SchedOut())
    w.do(Grant())
    w.do(SchedIn())
    return v.state.owned, between, w.state.owned if v.design.keeps_records else 0


@row("the host's DEPTH while a guest of 8 does not own", (8, [0x44, 0], 32, [0x44, 0], 8), ("refused",) * 5)
def _(make, design):
    if design.highest_depth_only:
        return ("refused",) * 5
    v = make(guest=leaves((8, 16, 32)))
    v.wr(DEPTH, 8)
    v.wr(CTL, ALL)
    v.run((0x44, 0x48))
    inside = v.state.lbr.depth
    seen = v.froms(2)
    v.do(Release())
    outside = v.state.lbr.depth
    v.do(Grant())
    return inside, seen, outside, v.froms(2), v.state.lbr.depth


@row("FREEZE_WHILE_SMM stays the host's", (1 << 14, 0, 1 << 14), (0, 0, 1 << 14))
def _(make, _design):
    v = make()
    v.state = v.state._replace(lbr=v.state.lbr._replace(debugctl=1 << 14))
    v.enter()
    inside = v.state.lbr.debugctl
    read = v.rd(DEBUGCTL)
    v.exit()
    return inside, read, v.state.lbr.debugctl


def moved(v, w):
    """Do as a VMM does: read every value, write XSS, DEPTH, records, CTL; return what reads back."""
    w.hi(XSS, v.hi(XSS))
    w.hi(DEPTH, v.hi(DEPTH))
    for block in (FROM, TO):
        for x in range(32):
            w.hi(block + x, v.hi(block + x))
    w.hi(CTL, v.hi(CTL))
    return w.hi(XSS), w.hi(DEPTH), [w.hi(FROM), w.hi(FROM + 1), w.hi(TO)], w.hi(CTL)


def recorded(make):
    v = make()
    v.wr(XSS, LBR_XSS)
    v.wr(CTL, ALL)
    v.run((0x20, 0x30), (0x10, 0x18))
    return v


# Series v2 creates the event in the restoring thread, and perf resets the registers for it (B 17).
@row(
    "70 moved by ioctls",
    ((LBR_XSS, 32, [0x10, 0x20, 0x18], ALL), [0x40, 0x10]),
    ((LBR_XSS, 32, [0, 0, 0], ALL), [0x40, 0]),
)
def _(make, _design):
    w = make()
    values = moved(recorded(make), w)
    w.run((0x40, 0x48))
    return values, w.froms(2)


@row("71 records before DEPTH", [0, 0])
def _(make, _design):
    v = make()
    v.hi(FROM, 0x10)
    v.hi(DEPTH, 32)
    return v.froms(2)


@row("72 LBREn = 0 at the save", (ALL & ~1, [0x10, 0x20, 0x18]))
def _(make, _design):
    v, w = recorded(make), make()
    v.wr(CTL, ALL & ~1)
    values = moved(v, w)
    return values[3], values[2]


@row("73 the target's depth differs", ("refused", 32))
def _(make, _design):
    v = make()
    return v.hi(DEPTH, 16), v.hi(DEPTH)


@row("74 the host owns at the save", (0, 0x44), (0x10, 0x44))
def _(make, _design):
    v = make()
    host_records(v)
    first = v.hi(FROM)
    v.hi(FROM, 0x44)
    return first, v.hi(FROM)


@row("75 from another thread", (0x20, [0x99, 0]), (0x99, [0x55, 0]))
def _(make, _design):
    v = make()
    v.wr(CTL, ALL)
    v.run((0x20, 0x28))
    v.do(SchedOut())
    stranger = v.state.lbr.stack[0]._replace(source=0x99, target=0x9A)
    blank = stranger._replace(source=0, target=0, info=0)
    v.state = v.state._replace(lbr=v.state.lbr._replace(stack=(stranger, *(blank,) * 31)))
    seen = v.hi(FROM)
    v.hi(FROM, 0x55)
    return seen, v.hardware[:2]


@row("76 another model, the same depth", (0, "ok", [0x10, 0]))
def _(make, _design):
    v = make(guest=leaves(signature=0xA06D0))
    first, second = v.rd(CTL), v.wr(CTL, ALL)
    v.run((0x10, 0x18))
    return first, second, v.froms(2)


@row("100 another physical CPU", ([0x10, 0x20], [0x10, 0x20], ALL))
def _(make, _design):
    v, elsewhere = recorded(make), make()
    before = v.froms(2)
    v.do(SchedOut())
    v.state = v.state._replace(lbr=elsewhere.state.lbr)
    v.do(SchedIn())
    return before, v.froms(2), v.rd(CTL)


@row("101 out and in with LBREn = 1", ([0x10, 0x20], 1, 1))
def _(make, _design):
    v = recorded(make)
    v.do(SchedOut())
    v.do(SchedIn())
    return v.froms(2), v.state.event, v.state.owned


@row("102 closed while it owns", (0, 0, [0, 0]), (0, 0, [0x10, 0x20]))
def _(make, _design):
    v = recorded(make)
    v.do(Close())
    return v.state.event, v.state.owned, v.hardware[:2]


@row("81 moved in SMM", (ALL & ~1, ALL, [0x10, 0x20]), (ALL & ~1, 1, [0, 0]))
def _(make, design):
    from archlbr.lbr.actions import Rsm, Smi

    v, w = recorded(make), make()
    v.do(Smi())
    w.state = restore(design, w.platform, w.state, save(design, v.platform, v.state))
    inside = w.rd(CTL)
    w.do(Rsm())
    return inside, w.rd(CTL), w.froms(2)
