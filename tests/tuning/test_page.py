"""The page in a browser: it loads, sorts, filters, selects, and says nothing in the console.

Chromium is driven by `browser`; without one on the PATH these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import PROGRAM, Page, browser
from explored import Measure, explored

from simdflow.tuning.explore import Exploration

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no chromium on the PATH: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='no'\">"
)
# The least contrast of a text and what is behind it, by the WCAG's formula; its bound is 4.5.
CONTRAST = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((x) => x / 255)
      .map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = ['h1', 'h2', 'p', 'td', 'th', 'pre span', '.cell', '.facts span', '#heat button',
    '.key span', '.tile span'].join(', ');
  return Math.min(...[...document.querySelectorAll(texts)]
    .filter((node) => node.textContent.trim())
    .map((node) => {
      const [a, b] = [getComputedStyle(node).color, ground(node)].map(light).sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    }));
})()"""
SHOWN = "[...document.querySelectorAll('#rows tr[data-id]')].map((r) => Number(r.dataset.id))"
SELECTED = "document.querySelector('#rows tr[aria-selected=true]')?.dataset.id"


@pytest.fixture(scope="module")
def exploration() -> Iterator[Exploration]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simdflow.tuning.page.ASSEMBLIES", 4)
        yield replace(explored(patch, Measure(fails=1)), name=HOSTILE)


@pytest.fixture(scope="module")
def file(exploration: Exploration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    exploration.html(path)
    return path


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(tab: Page, file: Path) -> Iterator[Page]:
    tab.console.clear()
    tab.requests.clear()
    tab.open(file)
    yield tab
    assert tab.console == []
    assert set(tab.requests) <= {file.as_uri()}  # no network, no other file


def click(page: Page, selector: str) -> None:
    event = "new MouseEvent('click', {bubbles: true})"
    page.run(f"document.querySelector({selector!r}).dispatchEvent({event})")


def test_it_loads_and_data_stays_data(page: Page, exploration: Exploration) -> None:
    assert page.run("document.querySelector('h1').textContent") == f"{HOSTILE} on portable"
    assert page.run("document.title") == f"{HOSTILE} on portable"
    assert page.run("document.querySelectorAll('script').length") == 2
    assert page.run(SHOWN) == list(range(len(exploration.variants)))
    said = page.run(
        "[...document.querySelectorAll('#verdict p, #verdict li')].map((x) => x.textContent)"
    )
    assert said == list(exploration.verdict)
    times = len(exploration.measured)
    assert page.run("document.querySelectorAll('#scatter .point').length") == times
    points = page.run("document.querySelectorAll('#roofline .point').length")
    assert points == len(exploration.variants) - 1  # one has failed
    inside = (
        "[...document.querySelectorAll('.point[data-id]')].map((p) => p.dataset)"
        ".every((p) => p.x >= 50 && p.x <= 410 && p.y >= 10 && p.y <= 290)"
    )
    assert page.run(inside)


def test_columns_sort_both_ways(page: Page, exploration: Exploration) -> None:
    vs = exploration.variants
    ids = range(len(vs))
    click(page, "th[data-key=registers] button")
    assert page.run(SHOWN) == sorted(ids, key=lambda i: (vs[i].plan.registers, i))
    click(page, "th[data-key=registers] button")
    assert page.run(SHOWN) == sorted(ids, key=lambda i: (-vs[i].plan.registers, i))
    assert page.run("document.querySelector('th[data-key=registers]').ariaSort") == "descending"
    click(page, "th[data-key=us] button")
    timed = [i for i in ids if vs[i].measured_us is not None]
    none = [i for i in ids if vs[i].measured_us is None]
    assert page.run(SHOWN) == [*sorted(timed, key=lambda i: (vs[i].time_us, i)), *none]
    click(page, "th[data-key=us] button")  # what has no value stays at the end
    assert page.run(SHOWN) == [*sorted(timed, key=lambda i: (-vs[i].time_us, i)), *none]


def test_filters_and_plots_agree(page: Page, exploration: Exploration) -> None:
    vs = exploration.variants
    page.run("{const s = document.getElementById('by-anchor'); s.value = 'w'; "
             "s.dispatchEvent(new Event('change'))}")  # fmt: skip
    wanted = [i for i, v in enumerate(vs) if v.flow.anchor == "w"]
    assert 0 < len(wanted) < len(vs) and page.run(SHOWN) == wanted
    bright = (
        "[...document.querySelectorAll('#roofline .point:not(.faint)')].map((p) => +p.dataset.id)"
    )
    assert sorted(page.run(bright)) == [i for i in wanted if not vs[i].why]
    word = str(max(dict(vs[i].flow.tile).get("n", 0) for i in wanted))
    page.run(f"{{const s = document.getElementById('by-text'); s.value = 'n:{word}'; "
             "s.dispatchEvent(new Event('input'))}")  # fmt: skip
    found = page.run(SHOWN)
    assert (found and set(found) < set(wanted)) or len(wanted) == 1
    page.run("{const s = document.getElementById('by-text'); s.value = 'no such words'; "
             "s.dispatchEvent(new Event('input'))}")  # fmt: skip
    assert page.run(SHOWN) == []
    assert "No dataflow passes" in page.run("document.getElementById('rows').textContent")
    click(page, "#reset")
    assert len(page.run(SHOWN)) == len(vs)


def test_a_cell_filters_and_selects_its_best(page: Page, exploration: Exploration) -> None:
    click(page, "#heat button[data-anchor=x][data-aux=none]")
    wanted = [
        i
        for i, v in enumerate(exploration.variants)
        if (v.flow.anchor, v.flow.auxiliary) == ("x", ())
    ]
    assert page.run(SHOWN) == wanted
    assert int(page.run(SELECTED)) == wanted[0]
    click(page, "#heat button[data-anchor=x][data-aux=none]")
    assert len(page.run(SHOWN)) == len(exploration.variants)


def test_a_selected_dataflow_shows_its_stages_and_registers(
    page: Page, exploration: Exploration
) -> None:
    click(page, "#rows tr[data-id='2']")
    v = exploration.variants[2]
    made = exploration.made(v)
    assert page.run("document.querySelector('#detail h2').textContent") == str(v.flow)
    texts = {"nest": made.nest, "program": made.program, "source": made.source}
    for stage, text in (texts | {"plan": f"{made.flow}\n{made.plan}"}).items():
        click(page, f"#tab-{stage}")
        assert page.run("document.querySelector('#stage pre').textContent") == str(text)
    click(page, "#tab-asm")
    lines = page.run(
        "[...document.querySelectorAll('pre.asm span')].map((x) => [x.className, x.textContent])"
    )
    kinds = {kind for kind, _ in lines}
    assert "arithmetic" in kinds and kinds & {"load", "arithmetic-load"}
    assert all(
        line.replace(" ", "") in made.asm().replace(" ", "").replace("\t", "") for _, line in lines
    )
    colors = (
        "['load', 'arithmetic'].map((c) => document.querySelector('#detail .' + c))"
        ".map((node) => getComputedStyle(node).color)"
    )
    load, arithmetic = page.run(colors)
    assert load != arithmetic
    cells = page.run("[...document.querySelectorAll('#planned .cell')].map((c) => c.className)")
    assert len(cells) == v.plan.target.registers
    assert sum(c.split()[1] not in ("free", "spare") for c in cells) == v.plan.registers
    ring = page.run("[...document.querySelectorAll('.ring')].length")
    assert ring == 2  # in the scatter and in the roofline
    last = len(exploration.variants) - 1
    page.run(f"location.hash = '#dataflow-{last + 1}'")
    assert int(page.run(SELECTED)) == last
    assert "To read it" in page.run("document.getElementById('stage').textContent")
    assert "SIGSEGV" in page.run("document.querySelector('.facts').textContent")


def test_the_keyboard_moves_the_selection(page: Page) -> None:
    page.run("document.querySelector('#rows tr').focus()")
    for key, expected in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("Home", 0)):
        page.press(key)
        assert int(page.run(SELECTED)) == expected, key
        assert int(page.run("document.activeElement.dataset.id")) == expected
    page.run("document.getElementById('tab-asm').focus()")
    page.press("ArrowRight")
    assert page.run("document.activeElement.id") == "tab-source"
    assert page.run("document.activeElement.ariaSelected") == "true"


def test_hovering_is_shared(page: Page) -> None:
    at = page.run(
        "{const p = document.querySelector('#scatter .point'); "
        "p.scrollIntoView({block: 'center'}); const b = p.getBoundingClientRect(); "
        "[p.dataset.id, b.x + b.width / 2, b.y + b.height / 2]}"
    )
    page.move(at[1], at[2])
    near = "[...document.querySelectorAll('.near')].map((x) => x.dataset.id)"
    hovered = set(page.run(near))
    assert len(hovered) == 1 and len(page.run(near)) == 3  # both points and the row
    assert not page.run("document.getElementById('tip').hidden")
    page.move(2, 2)
    assert page.run(near) == [] and page.run("document.getElementById('tip').hidden")


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_is_readable(page: Page, file: Path, width: int, dark: bool) -> None:
    page.open(file, width, dark)
    assert page.run("document.scrollingElement.scrollWidth") <= width
    assert page.run(CONTRAST) >= 4.5


def test_a_page_of_predictions_alone(
    tab: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = explored(monkeypatch, Measure(), budget=0)
    e.html(tmp_path / "page.html")
    tab.console.clear()
    tab.open(tmp_path / "page.html")
    assert "Nothing was measured" in tab.run("document.getElementById('scatter').textContent")
    assert len(tab.run(SHOWN)) == len(e.variants)
    assert tab.run("document.querySelectorAll('th[data-key=us]').length") == 0
    replace(e, variants=()).html(tmp_path / "empty.html")
    tab.open(tmp_path / "empty.html")
    assert "no legal dataflow" in tab.run("document.getElementById('rows').textContent")
    assert tab.console == []
