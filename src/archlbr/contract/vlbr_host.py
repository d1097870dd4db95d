"""The designs in which an event of perf's stands for the guest: `vlbr-6.1`, `vlbr-6.12`, `series-v2`.

`actors` has the model, `perf.schedule` perf's steps, `vpmu.designs.vlbr` KVM's. Here they are composed: which kernel
function runs at which action, and what each step breaks.
"""

from __future__ import annotations

from archlbr.contract import world as at
from archlbr.contract.actors import C1, G2, H1, H2, H4, M1_LIVE, S1, S3, S4, S5, HostModel
from archlbr.contract.world import Cpu, Ghost, World
from archlbr.lbr.tagged import NOBODY, VM, Lbrs
from archlbr.perf import samples, schedule
from archlbr.perf.events import ACTIVE, ERROR, INACTIVE, OFF
from archlbr.perf.schedule import TaskPerf
from archlbr.vpmu.designs import vlbr


class VlbrHost(HostModel):
    """A vLBR design in one scenario."""

    def settled(self, world: World) -> World:
        """Return the world with nothing seen, as if each vCPU had just been loaded."""
        cpus = world.cpus
        if self.sharing.snapshot_at_load:
            cpus = tuple([cpu._replace(snapshot=cpu.lbr.enable) for cpu in cpus])
        return world._replace(cpus=cpus, seen=0)

    def _counts(self, perf: schedule.CpuPerf) -> schedule.CpuPerf:
        # With the repair, intel_pmu_lbr_del() looks at its own event's filter, as if that one had been added last.
        return perf._replace(last_is_guest=1) if self.sharing.own_filter else perf

    # KVM's run loop

    def _on_enter(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        vcpu, task, lbr, perf = w.vcpus[v], w.tasks[v], cpu.lbr, cpu.perf
        seen = 0
        if vcpu.cleanup:
            if vlbr.releases(vcpu) and task.event != OFF:
                lbr, perf, task = schedule.guest_released(lbr, self._counts(perf), task, OFF)
                seen = self._counted(perf, task)
            vcpu = vcpu._replace(cleanup=0)
        snapshot = cpu.snapshot if self.sharing.snapshot_at_load else lbr.enable
        after = Cpu(cpu.thread, at.ENTRY, lbr, perf, snapshot, 0)
        return self.with_vcpu(w, c, after, v, seen, task=task, vcpu=vcpu)

    def _on_vmenter(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        active = int(w.tasks[v].event == ACTIVE)
        enable = vlbr.loaded_enable(self.sharing, w.vcpus[v], active, cpu.lbr.enable)
        lbr = Lbrs(enable, cpu.lbr.select, cpu.lbr.stack)
        after = Cpu(cpu.thread, at.GUEST, lbr, cpu.perf, cpu.snapshot, 0)
        if not w.ghosts[v].moved & 1:
            return self.moved(w, c, after)
        seen, ghost = self.judged_arrival(v, w.ghosts[v], lbr.stack if active else (0,) * len(lbr.stack))
        return self.with_vcpu(w, c, after, v, seen, ghost=ghost)

    _on_reenter = _on_vmenter

    def _left(self, w: World, c: int) -> tuple[Cpu, int]:
        cpu = w.cpus[c]
        enable = vlbr.enable_after_exit(self.sharing, w.vcpus[cpu.thread - 1], cpu.snapshot, cpu.lbr.enable)
        lbr = Lbrs(enable, cpu.lbr.select, cpu.lbr.stack)
        return Cpu(cpu.thread, at.EXIT, lbr, cpu.perf, cpu.snapshot, 0), self._coherent(lbr, cpu.perf)

    def _coherent(self, lbr: Lbrs, perf: schedule.CpuPerf) -> int:
        if perf.overflow:
            return 0  # frozen by hardware until the NMI
        return 0 if lbr.enable == int(perf.event == ACTIVE and not perf.guest) else H4

    def _on_exit(self, w: World, c: int, _: int) -> World:
        cpu, seen = self._left(w, c)
        return self.moved(w, c, cpu, seen)

    def _on_irqs_on(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        snapshot = cpu.snapshot if self.sharing.snapshot_at_load else 0
        return self.moved(w, c, Cpu(cpu.thread, at.HOST_ON, cpu.lbr, cpu.perf, snapshot, 0))

    def _exited(self, w: World, c: int) -> tuple[Cpu, int]:
        # An exit that is handled with interrupts on, as one step: nothing else happens in between that matters.
        cpu, seen = self._left(w, c)
        snapshot = cpu.snapshot if self.sharing.snapshot_at_load else 0
        return Cpu(cpu.thread, at.HOST_ON, cpu.lbr, cpu.perf, snapshot, 0), seen

    # The scheduler

    def _on_switch(self, w: World, c: int, to: int) -> World:
        cpu, opened = w.cpus[c], self.opened[c]
        lbr, perf, tasks = cpu.lbr, cpu.perf, w.tasks
        if cpu.thread:
            v = cpu.thread - 1
            lbr, perf, task = schedule.task_out(c, lbr, self._counts(perf), tasks[v], cpu.thread)
            tasks = at.put(tasks, v, task)
        elif opened.task and perf.event == ACTIVE:
            lbr = schedule.disabled_all(lbr, perf)
            perf = schedule.host_deleted(perf, INACTIVE)
        incoming = tasks[to - 1] if to else None
        if not to and opened.task and perf.event == INACTIVE and perf.ran:
            lbr, perf = schedule.host_added(lbr, perf)
        lbr, perf, incoming = schedule.task_in(c, lbr, perf, incoming, to, opened, shortcut=self.sharing.shortcut)
        vcpus, ghosts = w.vcpus, w.ghosts
        if incoming is not None:
            v = to - 1
            tasks = at.put(tasks, v, incoming)
            if incoming.event != OFF and not vcpus[v].cleanup:
                vcpus = at.put(vcpus, v, vcpus[v]._replace(cleanup=1))
            ghost = self.arrived(c, ghosts[v])
            if ghost is not ghosts[v]:
                ghosts = at.put(ghosts, v, ghost)
        snapshot = lbr.enable if self.sharing.snapshot_at_load else 0
        after = Cpu(to, at.HOST_ON, lbr, perf, snapshot, 0)
        return World(at.put(w.cpus, c, after), tasks, vcpus, ghosts, 0)

    def _counted(self, perf: schedule.CpuPerf, task: TaskPerf) -> int:
        return C1 if task.event == OFF and not perf.guest and task.callstack else 0

    # The guest

    def _on_branch(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        vcpu, lbr = w.vcpus[v], cpu.lbr
        ghost, seen = w.ghosts[v], 0
        if vcpu.enable and vcpu.level == 1:
            ghost = self.recorded_guest(v, ghost)
        if lbr.enable:
            if w.tasks[v].event != ACTIVE or vcpu.level == 2:
                seen |= S5
            if vcpu.level == 2 and cpu.perf.event == ACTIVE and self.opened[c].exclude_guest:
                seen |= H2
            if lbr.select not in (NOBODY, VM + v):
                seen |= S4
            lbr = Lbrs(1, lbr.select, (VM + v, *lbr.stack[:-1]))
        if not seen and lbr == cpu.lbr and ghost == w.ghosts[v]:
            return None
        return self.with_vcpu(w, c, Cpu(cpu.thread, at.GUEST, lbr, cpu.perf, cpu.snapshot, 0), v, seen, ghost=ghost)

    def _on_read(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if w.vcpus[v].level == 2:
            return None
        if vlbr.passes(w.tasks[v].event == ACTIVE):
            seen, ghost = self.judged_read(v, w.ghosts[v], cpu.lbr.stack)
            return self.with_vcpu(w, c, cpu, v, seen, ghost=ghost) if seen else None
        cpu, seen = self._exited(w, c)
        task, lbr, perf = w.tasks[v], cpu.lbr, cpu.perf
        if task.event == OFF:
            lbr, perf, task = schedule.guest_created(lbr, perf, task, self.opened[c])
        got = lbr.stack if task.event == ACTIVE else (0,) * len(lbr.stack)
        read, ghost = self.judged_read(v, w.ghosts[v], got)
        after = Cpu(cpu.thread, at.HOST_ON, lbr, perf, cpu.snapshot, 0)
        return self.with_vcpu(w, c, after, v, seen | read, task=task, ghost=ghost)

    def _turned_on(self, w: World, c: int, *, fails: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if vcpu.enable or vcpu.level == 2 or vcpu.smm:
            return None
        cpu, seen = self._exited(w, c)
        v = cpu.thread - 1
        task, lbr, perf = w.tasks[v], cpu.lbr, cpu.perf
        if task.event == OFF and not fails:
            lbr, perf, task = schedule.guest_created(lbr, perf, task, self.opened[c])
        if task.event == ACTIVE:
            lbr = Lbrs(lbr.enable, VM + v, lbr.stack)  # LBR_SELECT passes through
        after = Cpu(cpu.thread, at.HOST_ON, lbr, perf, cpu.snapshot, 0)
        return self.with_vcpu(w, c, after, v, seen, task=task, vcpu=vcpu._replace(enable=1))

    def _on_lbr_on(self, w: World, c: int, _: int) -> World | None:
        return self._turned_on(w, c, fails=0)

    def _on_lbr_on_fails(self, w: World, c: int, _: int) -> World | None:
        return self._turned_on(w, c, fails=1) if w.tasks[w.cpus[c].thread - 1].event == OFF else None

    def _on_lbr_off(self, w: World, c: int, _: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if not vcpu.enable or vcpu.level == 2 or vcpu.smm:
            return None
        cpu, seen = self._exited(w, c)
        return self.with_vcpu(w, c, cpu, cpu.thread - 1, seen, vcpu=vcpu._replace(enable=0))

    def _on_hole(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if not vlbr.passes(w.tasks[v].event == ACTIVE) or w.vcpus[v].level == 2:
            return None
        stack = (0, *(VM + v,) * (len(cpu.lbr.stack) - 1))
        if stack == cpu.lbr.stack:
            return None
        lbr = Lbrs(cpu.lbr.enable, cpu.lbr.select, stack)
        ghost = Ghost(stack, w.ghosts[v].moved, w.ghosts[v].cpu)
        return self.with_vcpu(w, c, cpu._replace(lbr=lbr), v, ghost=ghost)

    def _on_xsaves(self, w: World, c: int, _: int) -> World | None:
        # The MSR bitmaps do not cover it: it reads the registers, whoever owns them.
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if not self.sharing.architectural or w.vcpus[v].level == 2:
            return None
        seen, ghost = self.judged_read(v, w.ghosts[v], cpu.lbr.stack)
        return self.with_vcpu(w, c, cpu, v, seen, ghost=ghost) if seen else None

    def _written(self, w: World, c: int) -> World | None:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if not self.sharing.architectural or w.vcpus[v].level == 2:
            return None
        empty = (0,) * len(cpu.lbr.stack)
        theirs = w.tasks[v].event != ACTIVE and cpu.perf.event == ACTIVE
        seen = (S3 | (H1 if any(cpu.lbr.stack) else 0)) if theirs else 0
        ghost = Ghost(empty, w.ghosts[v].moved, w.ghosts[v].cpu)
        if not seen and cpu.lbr.stack == empty and ghost == w.ghosts[v]:
            return None
        lbr = Lbrs(cpu.lbr.enable, cpu.lbr.select, empty)
        return self.with_vcpu(w, c, cpu._replace(lbr=lbr), v, seen, ghost=ghost)

    def _on_xrstors(self, w: World, c: int, _: int) -> World | None:
        return self._written(w, c)

    def _on_depth(self, w: World, c: int, _: int) -> World | None:
        return self._written(w, c) if self.sharing.raw_depth else None

    def _on_nest(self, w: World, c: int, _: int) -> World | None:
        return self._level(w, c, 1, 2)

    def _on_unnest(self, w: World, c: int, _: int) -> World | None:
        return self._level(w, c, 2, 1)

    def _level(self, w: World, c: int, held: int, wanted: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if vcpu.level != held or vcpu.smm:
            return None
        cpu, seen = self._exited(w, c)
        return self.with_vcpu(w, c, cpu, cpu.thread - 1, seen, vcpu=vcpu._replace(level=wanted))

    def _on_smi(self, w: World, c: int, _: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if not self.sharing.architectural or vcpu.smm or vcpu.level == 2:
            return None
        cpu, seen = self._exited(w, c)
        return self.with_vcpu(w, c, cpu, cpu.thread - 1, seen, vcpu=vcpu._replace(smm=1 + vcpu.enable, enable=0))

    def _on_rsm(self, w: World, c: int, _: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if not vcpu.smm:
            return None
        cpu, seen = self._exited(w, c)
        enable = 1 if self.sharing.rsm_sets else vcpu.smm - 1
        seen |= G2 if enable != vcpu.smm - 1 else 0
        return self.with_vcpu(w, c, cpu, cpu.thread - 1, seen, vcpu=vcpu._replace(smm=0, enable=enable))

    # Host code and host events

    def _on_host_branch(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if not cpu.lbr.enable:
            return None
        lbr, seen = self.host_branch(cpu, int(cpu.perf.event == ACTIVE and not cpu.perf.guest))
        return self.moved(w, c, cpu._replace(lbr=lbr), seen) if seen or lbr != cpu.lbr else None

    def _hosted(self, w: World, c: int) -> World | None:
        cpu = w.cpus[c]
        if self.opened[c].task and cpu.thread:
            return None
        v = cpu.thread - 1
        task = w.tasks[v] if cpu.thread else None
        lbr, perf, task = schedule.host_installed(cpu.lbr, self._counts(cpu.perf), task, self.opened[c])
        after = Cpu(cpu.thread, cpu.phase, lbr, perf, cpu.snapshot, 0)
        return self.moved(w, c, after) if task is None else self.with_vcpu(w, c, after, v, task=task)

    def _on_install(self, w: World, c: int, _: int) -> World | None:
        ready = self.scenario.events[c] is not None and w.cpus[c].perf.event == OFF
        return self._hosted(w, c) if ready else None

    def _on_enable(self, w: World, c: int, _: int) -> World | None:
        return self._hosted(w, c) if w.cpus[c].perf.event == INACTIVE else None

    def _on_disable(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if cpu.perf.event != ACTIVE or cpu.perf.overflow:
            return None
        lbr, perf = schedule.host_removed(cpu.lbr, cpu.perf, INACTIVE)
        return self.moved(w, c, cpu._replace(lbr=lbr, perf=perf))

    def _on_remove(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if cpu.perf.event == OFF or cpu.perf.overflow:
            return None
        lbr, perf = schedule.host_removed(cpu.lbr, cpu.perf, OFF)
        return self.moved(w, c, cpu._replace(lbr=lbr, perf=perf))

    def _on_overflow(self, w: World, c: int, _: int) -> World | None:
        # Perfmon v2 and v3: hardware clears the enable bit, in the guest the guest's own (its freeze bit is set).
        cpu = w.cpus[c]
        if cpu.perf.event != ACTIVE or cpu.perf.overflow or (cpu.phase == at.GUEST and self.opened[c].exclude_guest):
            return None
        perf = cpu.perf._replace(overflow=1)
        lbr = Lbrs(0, cpu.lbr.select, cpu.lbr.stack)
        after = Cpu(cpu.thread, cpu.phase, lbr, perf, cpu.snapshot, 0)
        if cpu.phase != at.GUEST or not cpu.lbr.enable:
            dead = cpu.phase != at.GUEST and not cpu.perf.guest and not cpu.lbr.enable
            return self.moved(w, c, after, H1 if dead else 0)
        v = cpu.thread - 1
        return self.with_vcpu(w, c, after, v, G2, vcpu=w.vcpus[v]._replace(enable=0))

    def _on_nmi(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        freezes = "overflow" in self.scenario.may
        if cpu.perf.event != ACTIVE or cpu.perf.overflow != int(freezes):
            return None
        in_guest = int(cpu.phase == at.GUEST)
        if in_guest:
            if self.opened[c].exclude_guest and not freezes:
                return None
            stack = cpu.lbr.stack
            cpu, seen = self._left(w, c)
            if not self.sharing.nmi_first and cpu.lbr.enable:
                stack = (1,) * len(stack)  # the exit path has run with the host's enable bit back
                cpu = cpu._replace(lbr=Lbrs(1, cpu.lbr.select, stack))
            sample = samples.read(Lbrs(0, 0, stack), muted=cpu.perf.guest)
        else:
            seen = 0
            sample = samples.read(cpu.lbr, muted=cpu.perf.guest)
            if not freezes and not cpu.perf.guest and not cpu.lbr.enable:
                seen = H1  # nothing has been recorded for this event: its trace is dead
        seen |= self.judged_sample(c, sample, in_guest=in_guest)
        if freezes:
            enable = cpu.lbr.enable if cpu.perf.guest else 1
            lbr = Lbrs(enable, cpu.lbr.select, cpu.lbr.stack)
            cpu = cpu._replace(lbr=lbr, perf=cpu.perf._replace(overflow=0))
        return self.moved(w, c, cpu, seen) if seen or cpu != w.cpus[c] else None

    def _on_lose_slot(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if w.tasks[v].event != ACTIVE:
            return None
        lbr, perf, task = schedule.guest_released(cpu.lbr, self._counts(cpu.perf), w.tasks[v], ERROR)
        return self.with_vcpu(w, c, cpu._replace(lbr=lbr, perf=perf), v, task=task)

    # User space

    def _on_get_msrs(self, w: World, c: int, v: int) -> World | None:
        # intel_pmu_handle_lbr_msrs_access() asks whether the event is ACTIVE, not whether it is so here.
        if any(cpu.thread == v + 1 and cpu.phase not in (at.HOST_ON, at.USER) for cpu in w.cpus):
            return None
        active = w.tasks[v].event == ACTIVE
        stack = w.cpus[c].lbr.stack
        seen, _ = self.judged_read(v, w.ghosts[v], stack if active else (0,) * len(stack))
        seen |= M1_LIVE if any(w.ghosts[v].expect) and (not active or stack != w.ghosts[v].expect) else 0
        foreign = seen & (S1 | M1_LIVE) if active else seen & M1_LIVE
        return w._replace(seen=foreign) if foreign else None

    def _on_migrate(self, w: World, c: int, v: int) -> World | None:
        vcpu, ghost = w.vcpus[v]._replace(cleanup=0), w.ghosts[v]
        # KVM_SET_MSRS of an enable bit that is set creates the event anew; no record is in any save list.
        task = TaskPerf(event=INACTIVE, known=1) if vcpu.enable else TaskPerf()
        moved = 2 if any(ghost.expect) else 0
        after = self.with_vcpu(w, c, w.cpus[c], v, task=task, vcpu=vcpu, ghost=Ghost(ghost.expect, moved, ghost.cpu))
        return after if after != w._replace(seen=0) else None
