"""The document and the page: each claim has its check, sphinx builds the one, a browser opens the other."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from archlbr.contract import designs, scenarios
from archlbr.contract.answers import ANSWERS
from archlbr.contract.document import as_rst
from archlbr.contract.page import as_html
from archlbr.contract.properties import CLAIMS
from archlbr.contract.table import explored
from archlbr.contract.verdicts import judge

PROMISES = [(answer.design, check) for _, answers in ANSWERS for answer in answers for check in answer.checks]
FEW = ["lend", "alone", "steady", "denied", "guest-sampled", "roam-traced"]


@pytest.fixture(scope="module")
def table():
    return explored(list(designs.DESIGNS.values()), FEW)


@pytest.mark.parametrize(
    ("design", "check"), PROMISES, ids=lambda part: "-".join(map(str, part)) if isinstance(part, tuple) else part
)
def test_each_answer_is_what_the_search_says(design, check) -> None:
    found = judge(designs.named(design), scenarios.named(check.scenario))
    assert found.exploration.complete
    assert int(check.claim in found.found) == check.broken


def test_the_document_holds_each_verdict_of_the_table(table) -> None:
    text = as_rst(table)
    for claim in CLAIMS:
        row = re.search(rf"^{re.escape(claim.name)}  +((?:holds|violated|n/a).*)$", text, re.MULTILINE)
        assert row, claim.name
        assert row[1].split() == [table.cells[design][claim.name].verdict for design in table.cells]


def test_the_document_has_what_each_design_costs(table) -> None:
    lines = as_rst(table).splitlines()
    row = next(line for line in lines[lines.index("What it costs") :] if line.startswith("vlbr-6.12, no host event"))
    assert "1 RDMSR (100)" in row
    assert "98 RDMSR (9,800)" in row


@pytest.mark.foreign
@pytest.mark.skipif(
    not shutil.which("sphinx-build"), reason="sphinx-build is missing (Debian: apt install python3-sphinx)"
)
def test_sphinx_builds_the_document_without_a_warning(table, tmp_path) -> None:
    (tmp_path / "conf.py").write_text("project = 'contract'\n")
    (tmp_path / "index.rst").write_text(as_rst(table))
    command = ["sphinx-build", "-W", "-q", "-b", "html", ".", "out"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (told.returncode, told.stderr) == (0, "")


BROWSER = shutil.which("chromium")
ASK = """<script>
const seen = id => getComputedStyle(document.getElementById(id)).display;
const cell = document.querySelector('a.violated'), id = cell.hash.slice(1), before = seen(id);
cell.focus(); const focused = document.activeElement === cell; cell.click();
setTimeout(() => { document.title = [before, focused, seen(id),
  document.querySelectorAll('#' + id + ' circle').length].join(' '); }, 50);
</script></body>"""


@pytest.mark.foreign
@pytest.mark.skipif(not BROWSER, reason="chromium is missing (Debian: apt install chromium)")
def test_a_violated_cell_takes_the_focus_and_opens_its_diagram(table, tmp_path) -> None:
    page = tmp_path / "page.html"
    page.write_text(as_html(table).replace("</body>", ASK))
    told = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000",
         f"--user-data-dir={tmp_path}/profile", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>([^<]*)</title>", told.stdout)
    assert title, told.stderr
    first = next(cell for cell in (table.cells[d]["S1"] for d in table.cells) if cell.verdict == "violated")
    assert title[1] == f"none true block {first.depth}"
