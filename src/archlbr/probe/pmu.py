"""The host kernel's links: a PMU in sysfs, its branch stack, who may use it, and whether perf can open it.

Fed by sysfs, /proc and one perf_event_open in a process of its own; reference architecture.md 6.4, profile-tools.md 6.
"""

from __future__ import annotations

from archlbr.probe.chain import Host, Link, State

DEVICES = "/sys/bus/event_source/devices"
PMUS = ("cpu", "cpu_core", "cpu_atom")  # hybrid processors have the last two instead
PARANOID = "/proc/sys/kernel/perf_event_paranoid"
USER_SELF = 2  # the highest level at which a user may measure their own user-mode code


def pmu_links(host: Host) -> tuple[Link, ...]:
    """Return the links of the kernel's PMU, in the order `perf record -b` meets them."""
    return pmu(host), branch_stack(host), permission(host), perf_opens(host)


def pmu(host: Host) -> Link:
    """Say whether the kernel drives a processor PMU."""
    found = _pmus(host)
    if found:
        return Link("pmu", State.OK, ", ".join(f"{DEVICES}/{name}" for name in found))
    if not host.path(DEVICES).is_dir():
        return Link("pmu", State.UNKNOWN, f"no {DEVICES}", "mount sysfs")
    return Link("pmu", State.BROKEN, f"no cpu in {DEVICES}", "in a virtual machine: start it with pmu=on")


def branch_stack(host: Host) -> Link:
    """Say how deep a branch stack the PMU offers."""
    found = _pmus(host)
    depths = {name: host.text(f"{DEVICES}/{name}/caps/branches") for name in found}
    shown = [f"{DEVICES}/{name}/caps/branches = {depth}" for name, depth in depths.items() if depth]
    if shown:
        return Link("branch-stack", State.OK, ", ".join(shown))
    if not found:
        return Link("branch-stack", State.BROKEN, "no PMU, so no branch stack", "mend the link pmu first")
    return Link(
        "branch-stack",
        State.BROKEN,
        f"no {DEVICES}/{found[0]}/caps/branches: the kernel found no LBRs",
        "in a virtual machine: a hypervisor that offers them; else `archlbr record`",
    )


def permission(host: Host) -> Link:
    """Say whether perf_event_paranoid lets a user measure their own code."""
    text = host.text(PARANOID)
    if text is None:
        return Link("permission", State.BROKEN, f"no {PARANOID}", "use a kernel with CONFIG_PERF_EVENTS")
    try:
        level = int(text)
    except ValueError:
        return Link("permission", State.UNKNOWN, f"{PARANOID} = {text!r}", f"write a number to {PARANOID}")
    if level <= USER_SELF:
        return Link("permission", State.OK, f"{PARANOID} = {level}")
    return Link(
        "permission",
        State.BROKEN,
        f"{PARANOID} = {level}: only root may measure",
        f"sysctl kernel.perf_event_paranoid={USER_SELF}",
    )


# perf_event_open(2): what an error number says of a branch-stack event on this process.
REFUSALS = {
    "ENOENT": ("there is no hardware PMU", "mend the link pmu first"),
    "EOPNOTSUPP": ("the PMU has no branch stack, or cannot interrupt", "mend the link branch-stack first"),
    "EINVAL": ("the kernel does not know the request", "use Linux 5.17 or newer"),
    "EACCES": ("it is not allowed", "mend the link permission, or be root"),
    "EPERM": ("it is not allowed", "mend the link permission, or be root"),
    "ENOSYS": ("there is no such system call, or a filter hides it", "run outside the container"),
}


def perf_opens(host: Host) -> Link:
    """Say whether the kernel opens a cycles event with a branch stack on a process of ours."""
    answer = host.opens_perf()
    if not answer.error:
        return Link("perf-open", State.OK, "perf_event_open: cycles:u with a branch stack was opened")
    if answer.error in REFUSALS:
        meaning, advice = REFUSALS[answer.error]
        return Link("perf-open", State.BROKEN, f"perf_event_open: {answer.error}, {meaning}", advice)
    return Link("perf-open", State.UNKNOWN, f"perf_event_open: {answer.error}", "look at the kernel's log")


def _pmus(host: Host) -> list[str]:
    return [name for name in PMUS if host.path(f"{DEVICES}/{name}").is_dir()]
