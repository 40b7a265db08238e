"""The page in a real browser."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from chromium import Tab, needs_browser, opened
from inspection_run import SCRIPT, MadeRun, make_run

from future_l1_verl.evaluation.inspection import inspect
from future_l1_verl.evaluation.inspection.page import verdict

pytestmark = needs_browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def page(run: MadeRun) -> Path:
    return inspect(run.folder)


async def shown(tab: Tab) -> list[int]:
    """Rows of the answers that are on the page and visible."""
    script = "[...document.querySelectorAll('article')].filter(a => a.offsetHeight > 0).map(a => Number(a.id.slice(4)))"
    return await tab.evaluate(script)


async def choose(tab: Tab, name: str, value: str) -> None:
    """As a user does: the value changes and the control says so."""
    control = f"document.querySelector('#filters [name={name}]')"
    await tab.evaluate(f"{control}.value = {json.dumps(value)}")
    await tab.evaluate(f"{control}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def test_what_goes_wrong_in_a_page_is_seen(tmp_path: Path) -> None:
    """The control: without it the next test would pass on a deaf browser."""
    (tmp_path / "page.html").write_text(
        "<link rel=icon href='data:,'><img src=missing.png><script>console.error('one'); throw new Error('two')</script>"
    )

    async def problems() -> list[str]:
        async with opened(tmp_path / "page.html") as tab:
            return tab.problems

    seen = asyncio.run(problems())
    assert "console: ['one']" in seen
    assert any(problem.startswith("exception: Error: two") for problem in seen)
    assert "request: net::ERR_FILE_NOT_FOUND" in seen


def test_the_page_loads_without_a_complaint_and_obeys_no_reply(run: MadeRun, page: Path) -> None:
    scripts = {
        "broken": "[...document.images].filter(image => image.naturalWidth === 0).map(image => image.src)",
        "obeyed": "'obeyed' in window",
        "quoted": f"document.querySelector('main').textContent.split({json.dumps(SCRIPT)}).length - 1",
    }

    async def look() -> tuple[list[str], dict[str, object]]:
        async with opened(page) as tab:
            found = {name: await tab.evaluate(script) for name, script in scripts.items()}
            return tab.problems, found

    problems, found = asyncio.run(look())
    quoted = sum(SCRIPT in record.text for record in run.records)
    assert (problems, found) == ([], {"broken": [], "obeyed": False, "quoted": quoted})
    assert quoted > 0


def test_filters_leave_the_answers_that_fit(run: MadeRun, page: Path) -> None:
    split, _ = Counter(record.split for record in run.records).most_common(1)[0]
    wanted = {
        ("split", split): {r.row for r in run.records if r.split == split},
        ("verdict", "right"): {r.row for r in run.records if verdict(r).group == "right"},
        ("verdict", "no verdict"): {run.records[-1].row},
        ("text", "CANNOT say"): {r.row for r in run.records if r.text == "I cannot say."},
        ("text", "nobody says this"): set(),
    }

    async def filtered() -> None:
        async with opened(page) as tab:
            everything = set(await shown(tab))
            assert everything == {record.row for record in run.records}
            for (name, value), rows in wanted.items():
                assert rows != everything
                await choose(tab, name, value)
                assert set(await shown(tab)) == rows, (name, value)
                count = await tab.evaluate("document.getElementById('count').value")
                assert count == f"{len(rows)} of {len(run.records)} shown"
                assert await tab.evaluate("document.getElementById('none').hidden") == bool(rows)
                await choose(tab, name, "")
            await choose(tab, "split", split)
            await choose(tab, "verdict", "right")
            assert set(await shown(tab)) == wanted["split", split] & wanted["verdict", "right"]
            assert tab.problems == []

    asyncio.run(filtered())


def test_dark_and_light_have_readable_text(page: Path) -> None:
    """WCAG AA: the contrast of text and its ground is 4.5 at least."""
    pairs = [(text, ground) for text in ("ink", "muted") for ground in ("page", "card", "shade")]
    pairs += [(kind, f"{kind}-fill") for kind in ("free", "forced", "right", "wrong")]
    pairs += [("card", "free"), ("forced", "shade"), ("wrong", "shade"), ("forced", "card")]
    script = "name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()"

    async def colours(scheme: str) -> dict[str, str]:
        async with opened(page) as tab:
            await tab.emulate_colour_scheme(scheme)
            return {name: await tab.evaluate(f"({script})('{name}')") for pair in pairs for name in pair}

    light, dark = asyncio.run(colours("light")), asyncio.run(colours("dark"))
    assert light["page"] != dark["page"]
    for scheme in (light, dark):
        assert {pair: ratio for pair in pairs if (ratio := contrast(*(scheme[name] for name in pair))) < 4.5} == {}


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Relative, of ``#rgb`` or ``#rrggbb``."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
