"""`probe`: the chain as text and as a document, below a root, from a dump and on this host."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from archlbr.cli.probe import as_json, as_text
from archlbr.probe.chain import Link, State, verdict
from tests.cli.shell import archlbr
from tests.probe.hosts import chain, whole


def test_a_host_with_everything_holds(tmp_path: Path) -> None:
    links = chain(whole(tmp_path))
    assert verdict(links) == "holds"
    assert as_text(links, ()) == (
        "from silicon to a guest's `perf record -b`:\n"
        "  ok      processor     GenuineIntel family 6 model 197\n"
        "  ok      arch-lbr      CPUID.07H:EDX[19] = 1 (a dump)\n"
        "  ok      leaf-1c       depths 8, 16, 32; XSAVE component 15 offered\n"
        "  ok      pmu           /sys/bus/event_source/devices/cpu\n"
        "  ok      branch-stack  /sys/bus/event_source/devices/cpu/caps/branches = 32\n"
        "  ok      permission    /proc/sys/kernel/perf_event_paranoid = 2\n"
        "  ok      perf-open     perf_event_open: cycles:u with a branch stack was opened\n"
        "  ok      kvm-device    /dev/kvm may be read and written\n"
        "  ok      kvm-api       KVM_GET_API_VERSION = 12\n"
        "  ok      kvm-lbr       KVM_GET_SUPPORTED_CPUID: 07H:EDX[19] = 1, depths 8, 16, 32\n"
        "  ok      qemu          qemu-system-x86_64 knows arch-lbr; "
        "start the guest with -cpu host,pmu=on,arch-lbr=on\n"
        "\n"
        "what `archlbr record` needs:\n"
        "\n"
        "the chain holds"
    )


def test_the_document_of_a_probe(tmp_path: Path) -> None:
    links = (Link("one", State.OK, "seen"), Link("two", State.BROKEN, "gone", "mend it"))
    assert json.loads(as_json(links, links[:1])) == {
        "version": 1,
        "verdict": "broken",
        "first_broken": "two",
        "chain": [
            {"name": "one", "state": "ok", "evidence": "seen", "advice": ""},
            {"name": "two", "state": "broken", "evidence": "gone", "advice": "mend it"},
        ],
        "engine": [{"name": "one", "state": "ok", "evidence": "seen", "advice": ""}],
    }


def test_probe_reads_the_tree_below_its_root_and_the_dump_it_is_given(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.write_text(
        "CPU 5:\n"
        "   0x00000000 0x00: eax=0x0000001c ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n"
        "   0x00000001 0x00: eax=0x000c0652 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n"
        "   0x00000007 0x00: eax=0x00000002 ebx=0x00000000 ecx=0x00000000 edx=0xfc18c430\n"
        "   0x0000001c 0x00: eax=0x4000000b ebx=0x00000007 ecx=0x000f0007 edx=0x00000000\n"
    )
    root = tmp_path / "root"
    root.mkdir()
    ran = archlbr("probe", "--root", str(root), "--cpuid", str(dump), "--format", "json")
    assert (ran.status, ran.err) == (0, "")
    links = {link["name"]: link for link in json.loads(ran.out)["chain"]}
    assert links["arch-lbr"]["evidence"] == f"CPUID.07H:EDX[19] = 1 ({dump}, CPU 5)"
    assert links["pmu"]["state"] == "unknown"
    assert links["kvm-device"]["evidence"] == "no /dev/kvm"
    assert archlbr("probe", "--root", str(root), "--require").status == 1


def test_probe_of_a_root_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    name = str(tmp_path / "none")
    said = f"archlbr: {name}: no such directory; give --root the directory that stands for /\n"
    assert archlbr("probe", "--root", name) == (2, "", said)


def test_probe_of_this_host_looks_at_each_link_once() -> None:
    ran = archlbr("probe", "--format", "json")
    found = json.loads(ran.out)
    assert ran.status == 0
    assert [link["name"] for link in found["chain"]] == [
        "processor", "arch-lbr", "leaf-1c", "pmu", "branch-stack", "permission", "perf-open", "kvm-device", "kvm-api",
        "kvm-lbr", "qemu",
    ]  # fmt: skip
    assert {link["name"]: link["state"] for link in found["engine"]}["unicorn"] == "ok"
    kvm = Path("/dev/kvm")
    there = kvm.exists() and stat.S_ISCHR(kvm.stat().st_mode)
    assert (found["chain"][7]["evidence"] == "no /dev/kvm") == (not there)
