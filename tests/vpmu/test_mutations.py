"""One wrong choice at a time: some row of the table must notice each."""

from __future__ import annotations

from functools import partial

import pytest

from archlbr.errors import ArchLbrError
from archlbr.lbr.actions import Smi
from archlbr.vpmu.actions import ReadSmram
from archlbr.vpmu.designs import ARCHLBR, DEFECTS, DESIGNS, SERIES_V2, Design
from tests.vpmu.parts import CTL, Vcpu, leaves
from tests.vpmu.rows import ROWS

FIELDS = [field for field in Design._fields if field != "name"]


def noticed(design: Design, expected: str) -> list[str]:
    """Return the rows whose answers differ from what is expected of a sound design."""
    seen = []
    for row in ROWS:
        try:
            answer = row.ask(partial(Vcpu, design), design)
        except (ArchLbrError, TypeError, AttributeError) as failure:
            answer = repr(failure)
        if answer != getattr(row, expected):
            seen.append(row.number)
    return seen


# Where a 32-bit guest has no LBRs, what SMM does with them cannot be seen.
UNSEEN = {"smram_needs_lm"}


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in UNSEEN])
def test_a_wrong_choice_in_archlbr_is_noticed(field):
    wrong = ARCHLBR._replace(**{field: 1 - getattr(ARCHLBR, field)})
    assert noticed(wrong, "archlbr") != []


def test_smm_of_a_32_bit_guest_where_it_has_lbrs():
    sound = ARCHLBR._replace(wants_long_mode=0)
    for design, expected in ((sound, (6, 7)), (sound._replace(smram_needs_lm=1), (7, 0))):
        v = Vcpu(design, guest=leaves(long_mode=0))
        v.wr(CTL, 7)
        v.do(Smi())
        assert (v.rd(CTL), v.do(ReadSmram())) == expected


def test_nothing_is_noticed_when_nothing_is_wrong():
    assert noticed(ARCHLBR, "archlbr") == []
    assert noticed(SERIES_V2, "series_v2") == []


def test_each_difference_between_the_designs_is_a_named_defect():
    differing = {field for field in FIELDS if getattr(ARCHLBR, field) != getattr(SERIES_V2, field)}
    assert {defect.field for defect in DEFECTS} == differing
    assert len(DEFECTS) == len(differing)


def test_each_defect_names_its_patch_and_message():
    for defect in DEFECTS:
        if defect.patch == "base":
            assert defect.message
            continue
        number = int(defect.patch.removeprefix("P"))
        assert 1 <= number <= 15
        assert defect.message == f"20221125040604.5051-{number + 1}-weijiang.yang@intel.com"


def test_the_default_is_archlbr():
    assert list(DESIGNS) == ["archlbr", "series-v2"]
