"""The documents say what the vPMU is: each choice, each field, each place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archlbr.arch.msrs import MSRS
from archlbr.conformance.cases.table import CASES
from archlbr.lbr import registers as lbr_registers
from archlbr.lbr.actions import ColdReset
from archlbr.vpmu import registers as vpmu_registers
from archlbr.vpmu.counter_registers import COUNTER_REGISTERS
from archlbr.vpmu.designs import DEFECTS, DESIGNS, Design, protocol
from archlbr.vpmu.image import Image
from tests.vpmu.parts import Vcpu

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "archlbr"


def section(document: str, title: str) -> str:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return text.split(f"\n## {title}")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


CHOICES = [cells for cells in rows(section("divergences.md", "The vPMU")) if len(cells) == 7][1:]


def test_each_choice_of_a_design_has_its_row_in_order():
    assert [cells[0].strip("`") for cells in CHOICES] == [field for field in Design._fields if field != "name"]


@pytest.mark.parametrize("cells", CHOICES, ids=lambda cells: cells[0])
def test_each_row_is_whole_and_names_a_case(cells):
    assert all(cells), cells
    assert cells[6].strip("`") in {case.name for case in CASES}


def test_each_choice_is_explained_where_it_is_declared():
    documented = re.findall(r"^      (\w+)  +\S", protocol.Design.__doc__ or "", re.MULTILINE)
    assert documented == [field for field in Design._fields if field != "name"]


def test_each_place_is_in_the_code():
    places = [cells for cells in rows(section("divergences.md", "The vPMU")) if len(cells) == 4][1:]
    assert len(places) >= 10
    for *_, place in places:
        [(file, name)] = re.findall(r"`([\w/]+\.py)` (\w+)", place)
        assert re.search(rf"\b{name}\b", (PACKAGE / file).read_text(encoding="utf-8")), place


def test_each_module_that_says_unconfirmed_is_named():
    named = set(re.findall(r"`(vpmu/\w+\.py)`", section("divergences.md", "The vPMU")))
    unconfirmed = {
        str(path.relative_to(PACKAGE))
        for path in (PACKAGE / "vpmu").glob("*.py")
        if "UNCONFIRMED" in path.read_text(encoding="utf-8")
    }
    assert unconfirmed <= named


def test_each_field_of_the_snapshot_is_documented_in_order():
    listed = [
        name for cells in rows(section("formats.md", "vCPU snapshot")) for name in re.findall(r"`(\w+)`", cells[0])
    ]
    words = [name for name in listed if name in Image._fields]
    lists, order = words[:4], words[4:]
    assert lists == list(Image._fields[-4:])
    assert order == list(Image._fields[:-4])


def test_each_decision_a_module_cites_is_there():
    cited = set()
    for path in (PACKAGE / "vpmu").rglob("*.py"):
        cited |= set(re.findall(r"decision (0\d\d)", path.read_text(encoding="utf-8")))
    there = {path.name[:3] for path in (ROOT / "docs" / "decisions").glob("*.md")}
    assert {"020", "021", "022", "023", "024"} <= cited
    assert cited <= there


def test_defects_speak_in_both_directions():
    for defect in DEFECTS:
        assert defect.what
        assert defect.instead
        assert defect.said


def test_the_blocks_stand_in_the_order_of_the_facility_s():
    assert [block.msr for block in vpmu_registers.REGISTERS] == [block.msr for block in lbr_registers.REGISTERS]
    counted = [block.msr.index for block in COUNTER_REGISTERS]
    assert counted == sorted(counted, key=[msr.index for msr in MSRS].index)


@pytest.mark.parametrize("design", DESIGNS.values(), ids=lambda design: design.name)
def test_each_block_says_what_a_cold_reset_leaves(design):
    v = Vcpu(design)
    v.do(ColdReset())
    for index, (block, x) in vpmu_registers.BY_INDEX.items():
        if block.exists(v.state) and block.reachable(v.state, x):
            assert v.rd(index) == block.reset(v.state), f"{index:X}H"
    assert {block.seen_by != "" for block in vpmu_registers.REGISTERS} == {True}
