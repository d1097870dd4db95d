"""The HTML page in a real browser: sorted, searched and walked through with keys, light and dark, nothing loaded."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from archlbr.profile.perfdata.attr import BRANCH_CALL_STACK, BRANCH_USER
from tests.cli.shell import archlbr
from tests.report.browser import CHROMIUM, Browser
from tests.report.turn import CALL, REL_CALL, TIMED, TURN, compiled, profile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed: no ELF file to name places in", allow_module_level=True)

TAB, ENTER, ESCAPE = ("Tab", 9, ""), ("Enter", 13, "\r"), ("Escape", 27, "")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: no browser to show the page")
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    timed = [(source, target, info | TIMED | 4) for source, target, info in TURN]
    out = folder / "page.html"
    name = profile(folder, compiled(folder, "-g"), [timed] * 3)
    assert archlbr("report", "--format", "html", "-o", str(out), name) == (0, "", "")
    return out


@pytest.fixture
def shown(browser: Browser, page: Path) -> Browser:
    browser.requests.clear()
    browser.errors.clear()
    browser.scheme("light")
    browser.open("about:blank")
    browser.open(page.as_uri())
    return browser


def column(browser: Browser, table: str, number: int) -> list[str]:
    """Return the visible cells of a table's column, from top to bottom."""
    rows = f"[...document.querySelectorAll('#{table} tbody tr')].filter((row) => !row.hidden)"
    return list(browser.ask(f"{rows}.map((row) => row.cells[{number}].textContent.trim())"))


def test_the_page_names_no_address_of_the_outside(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!["'#]|data:)""", text) == []
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")


def test_the_page_loads_nothing_and_no_script_fails(shown: Browser, page: Path) -> None:
    assert [url for url in shown.requests if url not in ("about:blank", page.as_uri(), "data:,")] == []
    assert shown.errors == []


def test_the_tables_hold_the_profile(shown: Browser) -> None:
    assert column(shown, "functions", 4) == ["inner (turn)", "outer (turn)"]
    assert column(shown, "branches", 0) == ["40.00%", "20.00%", "20.00%", "20.00%"]
    assert column(shown, "branches", 2) == ["4.0"] * 4
    assert column(shown, "lines", 5) == ["jnz inner", "ret", "call inner", "jmp outer"]
    assert column(shown, "kinds", 3) == ["COND", "REL_JMP", "REL_CALL", "RET"]


def test_a_heading_sorts_by_click_and_by_key(shown: Browser) -> None:
    head = "document.querySelectorAll('#kinds thead button')[3]"
    shown.ask(f"{head}.click()")
    assert column(shown, "kinds", 3) == ["COND", "REL_CALL", "REL_JMP", "RET"]
    shown.ask(f"{head}.focus()")
    shown.press(*ENTER)
    assert column(shown, "kinds", 3) == ["RET", "REL_JMP", "REL_CALL", "COND"]
    assert shown.ask(f"{head}.closest('th').getAttribute('aria-sort')") == "descending"
    shown.ask("document.querySelectorAll('#kinds thead button')[1].click()")
    assert column(shown, "kinds", 1)[:2] == ["100.0%", "50.0%"]


def test_a_search_begins_with_a_slash_and_ends_with_escape(shown: Browser) -> None:
    shown.press("/", 191, "/")
    assert shown.ask("document.activeElement.id") == "search"
    for letter in "ret":
        shown.press(letter, ord(letter.upper()), letter)
    assert column(shown, "kinds", 3) == ["RET"]
    assert column(shown, "branches", 3) == ["RET"]
    assert column(shown, "functions", 4) == []
    assert shown.ask("document.getElementById('found').textContent") == "4 of 16 rows"
    shown.press(*ESCAPE)
    assert column(shown, "functions", 4) == ["inner (turn)", "outer (turn)"]
    assert shown.ask("document.getElementById('search').value") == ""


def test_a_function_is_a_graph_whose_blocks_lead_to_their_instructions(shown: Browser) -> None:
    names = "[...document.querySelectorAll('#f0 svg a')].map((block) => block.getAttribute('aria-label'))"
    assert shown.ask(names) == ["Block 0, ran 9 times", "Block 1, ran 3 times"]
    edges = "[...document.querySelectorAll('#f0 svg path.edge title')].map((edge) => edge.textContent)"
    assert shown.ask(edges) == ["B0 to B1: straight on 3", "B0 to B0: taken 6"]
    shown.ask("document.querySelectorAll('#f0 svg a')[1].focus()")
    shown.press(*ENTER)
    assert shown.ask("location.hash") == "#f0-b1"
    assert shown.ask("document.querySelector('tbody:target td:nth-child(6)').textContent") == "ret"


def test_keys_walk_through_the_functions(shown: Browser) -> None:
    opened = "[...document.querySelectorAll('details.function')].map((one) => one.open)"
    assert shown.ask(opened) == [True, False]
    shown.press("]", 221, "]")
    shown.press("]", 221, "]")
    assert shown.ask("document.activeElement.parentElement.id") == "f1"
    assert shown.ask(opened) == [True, True]
    shown.press("[", 219, "[")
    assert shown.ask("document.activeElement.parentElement.id") == "f0"


def test_everything_that_acts_is_reached_by_tab(shown: Browser) -> None:
    shown.ask("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    acting = "[...document.querySelectorAll('button, a[href], summary, input, [tabindex=\"0\"]')]"
    tags = shown.ask(f"{acting}.map((one) => one.tagName.toLowerCase())")
    assert {"a", "button", "input", "summary", "div"} == set(tags)
    reached = set()
    for _ in tags:
        shown.press(*TAB)
        reached.add(shown.ask(f"{acting}.indexOf(document.activeElement)"))
    assert reached == set(range(len(tags)))


def test_dark_is_dark_and_light_is_light(shown: Browser) -> None:
    def brightness(of: str) -> int:
        rule = shown.ask(f"getComputedStyle(document.body).{of}")
        return sum(map(int, re.findall(r"\d+", rule)[:3]))

    assert brightness("backgroundColor") > 700 > 200 > brightness("color")
    shown.scheme("dark")
    assert brightness("backgroundColor") < 100 < 600 < brightness("color")


def test_call_stacks_are_a_tree_of_the_page(browser: Browser, tmp_path: Path) -> None:
    calls = [[(CALL, 0x401000, REL_CALL)], [(CALL, 0x401000, REL_CALL)], []]
    name = profile(tmp_path, compiled(tmp_path), calls, branches=BRANCH_USER | BRANCH_CALL_STACK, ip=0x401000)
    out = tmp_path / "page.html"
    assert archlbr("report", "--format", "html", "-o", str(out), name) == (0, "", "")
    browser.open(out.as_uri())
    # A leaf's text, and each frame above it.
    assert (
        browser.ask("document.querySelector('#stacks .tree summary').textContent.trim()")
        == "66.7% 0.0% own outer (turn)"
    )
    leaves = "[...document.querySelectorAll('#stacks .leaf')].map((leaf) => leaf.textContent.trim())"
    assert browser.ask(leaves) == ["66.7% inner (turn)", "33.3% inner (turn)"]
