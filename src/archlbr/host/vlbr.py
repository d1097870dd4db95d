"""The designs in which an event of perf's stands for the guest: `vlbr-6.1`, `vlbr-6.12`, `series-v2`.

`perf.schedule` has perf's steps, `vpmu.designs.vlbr` KVM's; here stands which of them run at which action. perf
schedules the guest's event as one of its own, and nobody is asked. `vlbr_guest` has the guest's actions.
"""

from __future__ import annotations

from archlbr.host import state as at
from archlbr.host.state import QUIET, Cpu, Host, Moved, Told, put
from archlbr.host.vlbr_guest import VlbrGuest
from archlbr.lbr.bank import HOST
from archlbr.perf import samples, schedule
from archlbr.perf.events import ACTIVE, ERROR, INACTIVE, OFF
from archlbr.perf.schedule import TaskPerf
from archlbr.vpmu.designs import vlbr


class Vlbr(VlbrGuest):
    """A vLBR design."""

    def settled(self, host: Host) -> Host:
        """Return the host as if each vCPU had just been loaded."""
        if not self.sharing.snapshot_at_load:
            return host
        return host._replace(cpus=tuple([cpu._replace(snapshot=cpu.lbr.enable) for cpu in host.cpus]))

    # KVM's run loop

    def on_enter(self, h: Host, c: int, _: int) -> Moved:
        """vcpu_enter_guest(): KVM_REQ_PMU is served, interrupts go off."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        vcpu, task, lbr, perf = h.vcpus[v], h.tasks[v], cpu.lbr, cpu.perf
        if vcpu.cleanup:
            if vlbr.releases(vcpu) and task.event != OFF:
                lbr, perf, task = schedule.guest_released(lbr, self.counts(perf), task, OFF)
            vcpu = vcpu._replace(cleanup=0)
        snapshot = cpu.snapshot
        if not self.sharing.snapshot_at_load:
            lbr, snapshot = lbr.read_enable()
        after = Cpu(cpu.thread, at.ENTRY, lbr, perf, snapshot, 0)
        return self.with_vcpu(h, c, after, v, vcpu, task), QUIET

    def on_vmenter(self, h: Host, c: int, _: int) -> Moved:
        """VM entry."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        active = int(h.tasks[v].event == ACTIVE)
        enable = vlbr.loaded_enable(self.sharing, h.vcpus[v], active, cpu.lbr.enable)
        return self.moved(h, c, Cpu(cpu.thread, at.GUEST, cpu.lbr.switched(enable), cpu.perf, cpu.snapshot, 0))

    on_reenter = on_vmenter

    def on_exit(self, h: Host, c: int, _: int) -> Moved:
        """VM exit."""
        cpu = self.left(h, c)
        return self.changed(h, c, cpu), Told(cpu)

    def on_irqs_on(self, h: Host, c: int, _: int) -> Moved:
        """Interrupts go on."""
        cpu = h.cpus[c]
        snapshot = cpu.snapshot if self.sharing.snapshot_at_load else 0
        return self.moved(h, c, Cpu(cpu.thread, at.HOST_ON, cpu.lbr, cpu.perf, snapshot, 0))

    # The scheduler

    def on_switch(self, h: Host, c: int, to: int) -> Moved | None:
        """perf_event_task_sched_out() and _in(), around KVM's vcpu_put() and vcpu_load()."""
        cpu, opened = h.cpus[c], self.opened[c]
        lbr, perf, tasks, logs = cpu.lbr, cpu.perf, h.tasks, self.setting.logs
        own = len(h.vcpus) + c
        if cpu.thread:
            v = cpu.thread - 1
            if logs and tasks[v].log == logs:
                return None  # as far as the setting counts
            lbr, perf, task = schedule.task_out(c, lbr, self.counts(perf), tasks[v], cpu.thread, logs)
            tasks = put(tasks, v, task)
        elif opened.task and perf.event == ACTIVE:
            counted = self.counts(perf) if opened.callstack else perf
            lbr, perf, task = schedule.host_task_out(c, lbr, counted, tasks[own], own + 1)
            tasks = put(tasks, own, task)
        vcpus, shortcut = h.vcpus, self.sharing.shortcut
        if not to:
            lbr, perf, task = schedule.host_task_in(c, lbr, perf, tasks[own], own + 1, opened, shortcut=shortcut)
            tasks = put(tasks, own, task)
        else:
            v = to - 1
            lbr, perf, incoming = schedule.task_in(c, lbr, perf, tasks[v], to, opened, shortcut=shortcut)
            assert incoming is not None
            tasks = put(tasks, v, incoming)
            if incoming.event != OFF and not vcpus[v].cleanup:
                vcpus = put(vcpus, v, vcpus[v]._replace(cleanup=1))
        snapshot = 0
        if self.sharing.snapshot_at_load:
            lbr, snapshot = lbr.read_enable()
        after = Cpu(to, at.HOST_ON, lbr, perf, snapshot, 0)
        return Host(put(h.cpus, c, after), tasks, vcpus), QUIET

    def on_lose_slot(self, h: Host, c: int, _: int) -> Moved | None:
        """ctx_resched() finds no counter for the vLBR event: merge_sched_in() puts it into ERROR."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        if h.tasks[v].event != ACTIVE:
            return None
        lbr, perf, task = schedule.guest_released(cpu.lbr, self.counts(cpu.perf), h.tasks[v], ERROR)
        return self.with_vcpu(h, c, cpu._replace(lbr=lbr, perf=perf), v, h.vcpus[v], task), QUIET

    # Host code and host events

    def _hosted(self, h: Host, c: int) -> Moved | None:
        cpu = h.cpus[c]
        if self.opened[c].task and cpu.thread:
            return None
        at_task = cpu.thread - 1 if cpu.thread else len(h.vcpus) + c
        lbr, perf, task = schedule.host_installed(
            cpu.lbr, self.counts(cpu.perf), h.tasks[at_task], self.opened[c], vcpu=int(cpu.thread > 0)
        )
        after = Cpu(cpu.thread, cpu.phase, lbr, perf, cpu.snapshot, 0)
        return Host(put(h.cpus, c, after), put(h.tasks, at_task, task), h.vcpus), QUIET

    def _removed(self, h: Host, c: int, state: int) -> Moved:
        cpu = h.cpus[c]
        own = len(h.vcpus) + c
        task = h.tasks[own] if self.opened[c].callstack else None
        # The own_filter repair: intel_pmu_lbr_del() looks at this event's filter, a call-stack's if it has a context.
        before = self.counts(cpu.perf) if task is not None else cpu.perf
        lbr, perf, task = schedule.host_removed(cpu.lbr, before, state, task)
        tasks = h.tasks if task is None else put(h.tasks, own, task)
        return Host(put(h.cpus, c, cpu._replace(lbr=lbr, perf=perf)), tasks, h.vcpus), QUIET

    def on_install(self, h: Host, c: int, _: int) -> Moved | None:
        """__perf_install_in_context(), by IPI."""
        ready = self.setting.events[c] is not None and h.cpus[c].perf.event == OFF
        return self._hosted(h, c) if ready else None

    def on_enable(self, h: Host, c: int, _: int) -> Moved | None:
        """__perf_event_enable(), by IPI, or a rotation."""
        return self._hosted(h, c) if h.cpus[c].perf.event == INACTIVE else None

    def on_disable(self, h: Host, c: int, _: int) -> Moved | None:
        """__perf_event_disable(), by IPI, or a rotation."""
        cpu = h.cpus[c]
        if cpu.perf.event != ACTIVE or cpu.perf.overflow:
            return None
        return self._removed(h, c, INACTIVE)

    def on_remove(self, h: Host, c: int, _: int) -> Moved | None:
        """__perf_remove_from_context(), by IPI."""
        cpu = h.cpus[c]
        if cpu.perf.event == OFF or cpu.perf.overflow:
            return None
        return self._removed(h, c, OFF)

    def on_overflow(self, h: Host, c: int, _: int) -> Moved | None:
        """Perfmon v2 and v3: hardware clears the enable bit, in the guest the guest's own (its freeze bit is set)."""
        cpu = h.cpus[c]
        if cpu.perf.event != ACTIVE or cpu.perf.overflow or not self.counts_here(cpu, c):
            return None
        after = cpu._replace(perf=cpu.perf._replace(overflow=1), lbr=cpu.lbr.switched(0), owner=0)
        if cpu.phase != at.GUEST or not cpu.lbr.enable:
            return self.moved(h, c, after)
        v = cpu.thread - 1
        return self.with_vcpu(h, c, after, v, h.vcpus[v]._replace(enable=0)), QUIET

    def on_nmi(self, h: Host, c: int, _: int) -> Moved | None:
        """intel_pmu_handle_irq(): the host event takes a sample."""
        cpu = h.cpus[c]
        freezes = self.setting.freezes
        if cpu.perf.event != ACTIVE or cpu.perf.overflow != freezes:
            return None
        if not freezes and not self.counts_here(cpu, c):
            return None
        left = None
        if cpu.phase == at.GUEST:
            seen = cpu.lbr
            left = cpu = self.left(h, c)
            if not self.sharing.nmi_first and cpu.lbr.enable:
                seen = cpu.lbr.filled(HOST)  # the exit path has run with the host's enable bit back
                cpu = cpu._replace(lbr=seen)
            sample = samples.read(seen, muted=cpu.perf.guest)
        else:
            sample = samples.read(cpu.lbr, muted=cpu.perf.guest)
        if freezes:
            lbr = cpu.lbr if cpu.perf.guest else cpu.lbr.controlled(1)
            cpu = cpu._replace(lbr=lbr, perf=cpu.perf._replace(overflow=0))
        return self.changed(h, c, cpu), Told(left, sample=sample, in_guest=int(left is not None))

    # User space

    def on_get_msrs(self, h: Host, c: int, v: int) -> Moved | None:
        """intel_pmu_handle_lbr_msrs_access() asks whether the event is ACTIVE, not whether it is so here."""
        if any(cpu.thread == v + 1 and cpu.phase not in (at.HOST_ON, at.USER) for cpu in h.cpus):
            return None
        stack = h.cpus[c].lbr.stack
        return h, Told(read=stack if h.tasks[v].event == ACTIVE else (0,) * len(stack))

    def on_migrate(self, h: Host, c: int, v: int) -> Moved:
        """KVM_SET_MSRS of an enable bit that is set creates the event anew; no record is in any save list."""
        vcpu = h.vcpus[v]._replace(cleanup=0)
        task = TaskPerf(event=INACTIVE, known=1) if vcpu.enable else TaskPerf()
        return self.with_vcpu(h, c, h.cpus[c], v, vcpu, task), QUIET
