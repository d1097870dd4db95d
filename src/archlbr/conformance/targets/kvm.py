"""A real KVM as a target: a process of its own talks to the device, and no answer of it can hang us.

Whether a vCPU runs is tried first, in another process that may be lost; where it does not, guest instructions are
lacking and the VMM's questions are asked all the same. What the host is, is read off what KVM offers and
/proc/cpuinfo: a case that needs another host is skipped. Authority: Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from archlbr.arch import msrs, xsave
from archlbr.arch.outcomes import DONE, Image, Value
from archlbr.conformance import questions as q
from archlbr.conformance.answers import FAILED, Indices, Registers, Stopped
from archlbr.conformance.targets import kvm_cpuid
from archlbr.errors import InputError, InternalError
from archlbr.machine.msr_stubs import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.conformance.answers import Answer

SECONDS: Final = 5.0
API_VERSION: Final = 12
PROCESS: Final = "archlbr.conformance.targets.kvm_process"
CPUINFO: Final = Path("/proc/cpuinfo")


class KvmProcess:
    """The process that talks to the device; InputError when it cannot use it, or does not answer in time."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._seconds = SECONDS
        self._child = subprocess.Popen(
            [sys.executable, "-m", PROCESS, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._unread = b""
        try:
            self._answer("open")
            version = self.ask("version")
            if version != API_VERSION:
                raise InputError(
                    f"{device}: KVM_GET_API_VERSION is {version}, not {API_VERSION}; use a kernel's own KVM"
                )
        except BaseException:
            self.close()
            raise

    def ask(self, name: str, *arguments: Any) -> Any:
        """Send one request and return its answer."""
        if self._child.stdin is None:
            raise InternalError("the process has no standard input")
        with suppress(BrokenPipeError):  # the missing answer says it
            self._child.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
            self._child.stdin.flush()
        return self._answer(name)

    def close(self) -> None:
        """End the process; one that is stuck in the kernel is left behind rather than waited for."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=1.0)
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _answer(self, name: str) -> Any:
        line = self._line(name)
        try:
            said = json.loads(line)
        except ValueError:
            raise InputError(
                f"{self._device}: the process that asks it died at {name}; look at the kernel's log"
            ) from None
        if "error" in said:
            way_out = "join its group, often kvm" if name == "open" else "look at the kernel's log"
            raise InputError(f"{self._device}: {name}: {said['error']}; {way_out}")
        return said["answer"]

    def _line(self, name: str) -> bytes:
        if self._child.stdout is None:
            raise InternalError("the process has no standard output")
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not waiting.select(self._seconds):
                    raise InputError(
                        f"{self._device}: no answer to {name} within {self._seconds:g} seconds; ask another KVM"
                    )
                read = os.read(self._child.stdout.fileno(), 1 << 16)
                if not read:
                    break
                self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line


class KvmTarget:
    """The KVM behind a device node."""

    def __init__(self, device: str) -> None:
        self.name = "kvm"
        self.known_as: tuple[str, ...] = ("kvm",)
        self._process: KvmProcess | None = None
        self._missing = "" if Path(device).exists() else f"{device}: there is no KVM"
        self._no_guest = ""
        if self._missing:
            return
        self._process = KvmProcess(device)
        try:
            self._supported: list[list[int]] = self._process.ask("supported_cpuid")
            self._no_guest = _guest_does_not_run(device, self._supported)
        except BaseException:
            self._process.close()
            raise

    def lacks(self, setup: q.Setup, asked: tuple[q.Question, ...]) -> str:
        """Name the host, the guest or the look that this KVM does not have."""
        setups = (setup, *(question.setup for question in asked if isinstance(question, q.NewVm)))
        return (
            self._missing
            or next(filter(None, (self._lacks_host(one) for one in setups)), "")
            or next(filter(None, (self._lacks_question(question) for question in asked)), "")
        )

    def start(self, setup: q.Setup) -> Answer:
        """Make a VM whose vCPUs have the setup's CPUID."""
        rows = kvm_cpuid.edited(self._supported, setup.guest)
        if not self._ask("new_vm", rows, setup.vcpus):
            return FAILED
        # A format that the host does not have is refused; the guest then goes without.
        self.set_msr(msrs.IA32_PERF_CAPABILITIES.index, setup.guest.lbr_format, 0)
        return DONE

    def new_vm(self, setup: q.Setup) -> Answer:
        """Start over."""
        return self.start(setup)

    def offered(self, leaf: int, subleaf: int) -> Answer:
        """Return an entry of KVM_GET_SUPPORTED_CPUID."""
        return Registers(*kvm_cpuid.registers(self._ask("supported_cpuid"), leaf, subleaf))

    def msr_list(self) -> Answer:
        """Return KVM_GET_MSR_INDEX_LIST."""
        return Indices(tuple(sorted(self._ask("msr_list"))))

    def feature(self, msr: int) -> Answer:
        """Return a feature register, where KVM_GET_MSR_FEATURE_INDEX_LIST has it."""
        value = self._ask("feature", msr) if msr in self._ask("feature_list") else None
        return FAILED if value is None else Value(value)

    def set_cpuid(self, guest: q.Guest) -> Answer:
        """Give the vCPU another CPUID."""
        return DONE if self._ask("set_cpuid", kvm_cpuid.edited(self._supported, guest)) else FAILED

    def get_msr(self, msr: int, other_thread: int) -> Answer:
        """Read as userspace."""
        value = self._ask("get_msr", msr, other_thread)
        return FAILED if value is None else Value(value)

    def set_msr(self, msr: int, value: int, other_thread: int) -> Answer:
        """Write as userspace."""
        return DONE if self._ask("set_msr", msr, value, other_thread) else FAILED

    def execute(self, instruction: q.Instruction) -> Answer:
        """Let the vCPU execute one instruction, and return what its code reports."""
        match instruction:
            case q.Rdmsr(msr):
                return self._run(lambda report: Value(report.value), "rdmsr", msr)
            case q.Wrmsr(msr, value):
                return self._run(lambda _: DONE, "wrmsr", msr, 0, value)
            case q.Cpuid(leaf, subleaf):
                return self._run(lambda report: Registers(*report[:4]), "cpuid", leaf, subleaf)
            case q.Xsaves():
                return self._run(lambda _: Image(bytes.fromhex(self._ask("area"))[: xsave.AREA_SIZE]), "xsaves")
            case q.Xrstors(stores):
                for at, value in stores:
                    self._ask("store", at, value)
                return self._run(lambda _: DONE, "xrstors")

    def branch(self, branch: q.Branch) -> Answer:
        """Never asked: `lacks` names it."""
        raise InternalError(f"{branch} of a real KVM")

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Let the vCPU run once, or the other one be asked; `lacks` names all other events."""
        if event is q.Event.ENTRY:
            self._run(lambda _: DONE, "cpuid")
        elif event is q.Event.OTHER_VCPU:
            self._ask("other_vcpu")
        return DONE

    def look(self, place: q.Place, at: int) -> Answer:
        """Look at KVM_GET_XSAVE2's area; `lacks` names all other places."""
        if place is not q.Place.USER_XSAVE:
            raise InternalError(f"a look at {place} {at:#x} of a real KVM")
        return Value(int.from_bytes(bytes.fromhex(self._ask("xsave"))[at : at + 8], "little"))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()

    def _ask(self, name: str, *arguments: Any) -> Any:
        if self._process is None:
            raise InternalError(self._missing)
        return self._process.ask(name, *arguments)

    def _run(
        self, done: Callable[[Report], Answer], name: str, index: int = 0, subindex: int = 0, value: int = 0
    ) -> Answer:
        words = self._ask("execute", name, index, subindex, value)
        if len(words) == 1:
            return Stopped(words[0])
        report = Report(*words)
        fault = report.fault
        return done(report) if fault is None else fault

    def _lacks_host(self, setup: q.Setup) -> str:
        host = setup.host
        if host is None:
            return ""
        offers = kvm_cpuid.registers(self._supported, 7, 0)[3] >> 19 & 1
        if host.vendor == "amd":
            return "" if "AuthenticAMD" in _cpuinfo() else "an AMD processor"
        if not host.arch_lbr:
            return "a processor without Architectural LBR" if " arch_lbr" in _cpuinfo() else ""
        if not (host.entry_control and host.exit_control and host.pmu):
            return "an Architectural-LBR processor without the VMX controls, or a KVM without enable_pmu"
        if not offers:
            return "Architectural LBR in KVM_GET_SUPPORTED_CPUID"
        depths = kvm_cpuid.registers(self._supported, 0x1C, 0)[0] & 0xFF
        return "" if host == q.Host() and depths >> 3 == 1 else "a processor with this leaf 1CH"

    def _lacks_question(self, question: q.Question) -> str:
        match question:
            case q.Rdmsr() | q.Wrmsr() | q.Cpuid() | q.Xsaves() | q.Xrstors() | q.Happen(q.Event.ENTRY):
                return self._no_guest
            case q.Happen(q.Event.EXIT | q.Event.OTHER_VCPU) | q.Look(q.Place.USER_XSAVE):
                return ""
            case q.Happen(event):
                return f"a way to make it happen: {event}"
            case q.EnterL2():
                return "an L2 guest"
            case q.Look(place):
                return f"a look inside KVM: {place}"
            case q.Branch():
                return "guest code that branches at given addresses"
            case q.NewVm(setup):
                return self._lacks_host(setup)
            case _:
                return ""


def _guest_does_not_run(device: str, supported: list[list[int]]) -> str:
    """Return why no guest code runs, or "": a process of its own tries one CPUID, and is lost if it hangs."""
    try:
        trial = KvmProcess(device)
    except InputError as refusal:
        return f"a vCPU that runs ({refusal})"
    try:
        trial.ask("new_vm", supported, 1)
        words = trial.ask("execute", "cpuid", 0, 0, 0)
        if len(words) == 1:
            return f"a vCPU that runs (KVM_RUN left with exit reason {words[0]})"
    except InputError as refusal:
        return f"a vCPU that runs ({refusal})"
    finally:
        trial.close()
    return ""


def _cpuinfo() -> str:
    return CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
