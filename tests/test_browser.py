"""The page in a real browser, opened from disk: Debian's chromium, driven by Playwright.

One run for all, with every suite in it; another with more rows than a page holds."""

import csv
import os
import re
import shutil
from itertools import product

import gate_runs
import msgspec
import pytest
from synthetic import synthetic_run
from test_claims import ALWAYS, case, group, run_of

from hiddencost import plots
from hiddencost.page.compared import compare
from hiddencost.page.html import write_page
from hiddencost.page.rows import MOST
from hiddencost.records import Measurement

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "no chromium here: `apt-get install chromium`, then `make test-slow`"
PLACES = "data.chooser.places.filter((one) => one.model === 'minilm')"
PHONE = {"width": 375, "height": 740}
TAGS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="session")
def chromium():
    """A browser. Without one these tests are skipped, but where BROWSER_TESTS=required (CI) they fail."""
    if not CHROMIUM:
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def written(run, folder):
    """The address of the page of a run, with its plots."""
    return write_page(run, folder, plots.render(run, folder / "plots")).as_uri()


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    return written(synthetic_run(), tmp_path_factory.mktemp("page"))


@pytest.fixture
def opened(chromium):
    """Opens an address; at the end: no error in the console, nothing asked of a network."""
    contexts, trouble = [], []

    def open_(url, **looks):
        context = chromium.new_context(
            viewport=looks.pop("viewport", {"width": 1200, "height": 900}), **looks
        )
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda told: trouble.append(told.text) if told.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(("file:", "data:", "blob:")) else trouble.append(asked.url)
            ),
        )
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert trouble == []


def column(page, name):
    """The texts of a column of the table of measurements."""
    names = [head.strip() for head in page.locator("#measurements thead th").all_inner_texts()]
    cells = page.locator(f"#measurements tbody tr > :nth-child({names.index(name) + 1})")
    return [text.strip() for text in cells.all_inner_texts()]


def counted(page):
    """How many measurements match, by the line above the table."""
    return int(re.search(r"of ([\d,]+) measurements", page.inner_text("#count"))[1].replace(",", ""))


def pick(page, name, value):
    page.select_option(f'#filters [name="{name}"]', value)


def leading(text):
    """The number that a text begins with."""
    return float(re.match(r"[\d.,]+", text)[0].replace(",", ""))


def test_it_opens_with_an_answer_for_each_question_and_asks_no_network(opened, address):
    page = opened(address)
    assert page.title() == "What does a hidden state cost?"
    assert page.locator("#answers article").count() == 10
    assert page.locator("#answers article .word").first.is_visible()
    assert page.locator("#plots svg").count() >= 12
    assert len(column(page, "strategy")) == 50


def test_filters_narrow_the_table_and_stand_in_the_address(opened, address):
    page = opened(address)
    every = counted(page)
    pick(page, "mode", "graph")
    pick(page, "metric", "seconds")
    assert counted(page) < every
    assert set(column(page, "mode")) == {"graph"}
    assert set(column(page, "metric")) == {"seconds"}
    assert page.url.endswith("#explore?mode=graph&metric=seconds")
    page.fill('#filters [name="text"]', "always MIDDLE")
    assert counted(page) == 0
    page.fill('#filters [name="text"]', "always stacked")
    assert set(column(page, "strategy")) == {"always_return_stacked"}
    page.click("#filters button[type=reset]")
    assert counted(page) == every
    assert page.url.endswith("#explore")


def test_a_column_sorts_both_ways_and_what_has_no_value_comes_last(opened, address):
    page = opened(address)
    pick(page, "metric", "seconds")
    head = page.locator('#measurements th[data-name="ratio"]')
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    exact = page.evaluate("rows.map((row) => value(row, 'ratio'))")
    known = [ratio for ratio in exact if ratio is not None]
    assert known == sorted(known)
    assert exact == known + [None] * (len(exact) - len(known))
    shown = [leading(text) for text in column(page, "ratio")]
    assert shown == pytest.approx(known[: len(shown)], rel=0.02)  # each has digits of its own
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert leading(column(page, "ratio")[0]) == pytest.approx(known[-1], rel=0.02)
    assert page.url.endswith("sort=-ratio")


def test_a_link_brings_its_view_back(opened, address):
    page = opened(f"{address}#explore?mode=xla&strategy=functional_submodel&sort=-value")
    assert set(column(page, "mode")) == {"xla"}
    assert set(column(page, "strategy")) == {"functional_submodel"}
    assert page.input_value('#filters [name="mode"]') == "xla"
    assert page.locator('#measurements th[data-name="value"]').get_attribute("aria-sort") == "descending"
    page.wait_for_function("document.getElementById('explore').getBoundingClientRect().top < 200")


def test_an_answer_links_to_the_measurements_behind_it(opened, address):
    page = opened(address)
    page.locator("#index_in_advance .links a").first.click()
    page.wait_for_selector("#count:has-text('behind the answer to “index_in_advance”')")  # after a hashchange
    assert {"get_layer_name", "get_layer_index"} <= set(column(page, "strategy"))
    assert page.locator("#index_hard .links a").count() == 0  # measured in the run that is shipped


def test_the_csv_has_the_rows_of_the_view(opened, address, tmp_path):
    page = opened(address)
    pick(page, "strategy", "get_layer_name")
    pick(page, "metric", "seconds")
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "saved.csv")
    with open(tmp_path / "saved.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == counted(page)
    assert {row["strategy"] for row in rows} == {"get_layer_name"}
    assert all(0.5 < float(row["ratio"]) < 2 for row in rows)


def test_more_rows_are_shown_on_request(opened, address):
    page = opened(address)
    page.click("#more")
    assert len(column(page, "strategy")) == 100


def test_the_chooser_gives_a_way_its_cost_and_lines_to_paste(opened, address):
    page = opened(address)
    page.select_option('#chooser [name="mode"]', "graph")
    page.select_option('#chooser [name="points"]', "middle")
    chosen = page.locator("#chosen")
    assert "reads the middle hidden state in 0.5" in chosen.inner_text()
    assert "keras.Model(backbone.inputs" in chosen.locator("pre").inner_text()
    page.fill('#chooser [name="limit"]', "0.001")
    assert chosen.inner_text().startswith("No way that was measured here fits: the leanest, ")
    for enough in ("2,048", "2048", "2048,5"):
        page.fill('#chooser [name="limit"]', enough)
        assert "reads the middle hidden state in 0.5" in chosen.inner_text()


def test_the_chooser_names_the_command_for_what_the_run_has_not(opened, address):
    page = opened(address)
    places = {(one["mode"], one["points"], one["batch"], one["length"]) for one in page.evaluate(PLACES)}
    modes, points, batches, lengths = (sorted(set(values)) for values in zip(*places, strict=True))
    missing = next(one for one in product(modes, points, batches, lengths) if one not in places)
    for name, value in zip(("mode", "points", "batch", "length"), missing, strict=True):
        page.select_option(f'#chooser [name="{name}"]', str(value))
    assert page.locator("#chosen p").inner_text() == "This run has no such case. What measures it:"
    mode, point, batch, length = missing
    assert page.locator("#chosen pre").inner_text() == (
        f"hiddencost run --model minilm --backend tensorflow --device cpu --dtype float32 --mode {mode} "
        f"--points {point} --batch {batch} --seq {length}"
    )


def test_the_chooser_tells_where_another_mode_is_faster(opened, address):
    page = opened(address)
    page.select_option('#chooser [name="mode"]', "eager")
    assert re.search(r"In (graph|xla) mode the same takes [\d.]+ ms\.", page.inner_text("#chosen"))
    page.select_option('#chooser [name="mode"]', "graph")
    assert "mode the same takes" not in page.inner_text("#chosen")


def test_another_mode_is_faster_only_where_it_fits_and_is_another(opened, address):
    page = opened(address)
    page.select_option('#chooser [name="mode"]', "eager")
    places = page.evaluate(PLACES)
    chosen = {name: page.input_value(f'#chooser [name="{name}"]') for name in ("points", "batch", "length")}
    peaks = [
        (way["peak_bytes"], one["mode"])
        for one in places
        if {name: str(one[name]) for name in chosen} == chosen
        for way in one["ways"]
        if way["peak_bytes"]
    ]
    least = min(peaks)
    page.fill('#chooser [name="limit"]', str(least[0] / 2**20 + 0.01))
    page.select_option('#chooser [name="mode"]', least[1])
    assert "at its peak" in page.inner_text("#chosen .said")
    assert "mode the same takes" not in page.inner_text("#chosen")


def test_device_and_dtype_stand_in_the_table_where_there_are_several(opened, chromium, tmp_path):
    other = [msgspec.structs.replace(m, case=m.case.with_(dtype="bfloat16")) for m in group({ALWAYS: 1.02})]
    page = opened(written(run_of(group({ALWAYS: 1.02}) + other), tmp_path))
    assert set(column(page, "dtype")) == {"float32", "bfloat16"}
    heads = page.locator("#measurements thead th").all_inner_texts()
    assert "device" not in [head.strip() for head in heads]


def test_values_are_told_under_the_mouse(opened, address):
    page = opened(address)
    told = page.locator("#told")
    assert told.is_hidden()
    bar = page.locator("#measurements svg.ratio").first
    bar.scroll_into_view_if_needed()
    bar.hover()
    assert told.is_visible()
    assert told.inner_text() == bar.get_attribute("data-told")
    page.keyboard.press("Escape")
    assert told.is_hidden()
    mark = page.locator("#plot-overhead [data-told]").first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    assert re.search(r": \d\.\d+ \[", told.inner_text())
    box = told.bounding_box()
    assert 0 <= box["x"] <= 1200 - box["width"]


def luminance(page, selector, what):
    channels = re.findall(r"[\d.]+", page.eval_on_selector(selector, f"one => getComputedStyle(one).{what}"))
    return sum(float(channel) for channel in channels[:3]) / 3


def test_it_is_dark_where_the_reader_wants_it(opened, address):
    day, night = opened(address), opened(address, color_scheme="dark")
    assert luminance(day, "body", "backgroundColor") > 230 > 60 > luminance(night, "body", "backgroundColor")
    assert luminance(day, "h1", "color") < 90 < 180 < luminance(night, "h1", "color")
    text = "#plot-overhead svg text"
    fills = [luminance(page, text, "fill") for page in (day, night)]
    assert fills[0] < 120 < fills[1]


def test_it_fits_a_phone(opened, address):
    page = opened(address, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator('#filters [name="mode"]').scroll_into_view_if_needed()
    box = page.locator('#filters [name="mode"]').bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]


def test_it_is_used_with_the_keyboard(opened, address):
    page = opened(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the answers"
    assert page.locator(".skip").bounding_box()["y"] >= 0  # it shows itself when it is reached
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.locator('#measurements th[data-name="length"] button').focus()
    page.keyboard.press("Enter")
    assert page.locator('#measurements th[data-name="length"]').get_attribute("aria-sort") == "ascending"
    page.locator('#filters [name="mode"]').focus()
    page.keyboard.type("x")
    assert page.input_value('#filters [name="mode"]') == "xla"


def test_on_paper_everything_is_open_and_nothing_is_to_be_pressed(opened, address):
    page = opened(address)
    folded = page.locator("details:not([open])").count()
    assert folded > 10
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("#filters").is_hidden()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == folded
    assert page.pdf()[:5] == b"%PDF-"


@pytest.mark.parametrize(
    "looks", [{}, {"color_scheme": "dark"}, {"viewport": PHONE}], ids=["day", "night", "phone"]
)
def test_axe_finds_no_violation(opened, address, looks):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(address, **looks)
    if not looks:
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = Axe().run(page, options=TAGS)
    assert found.violations_count == 0, found.generate_report()


def test_a_run_beside_another_shows_what_moved(opened, tmp_path):
    before, after = gate_runs.run(gate_runs.alone()), gate_runs.run(gate_runs.alone(heap=8e6))
    path = write_page(after, tmp_path, [], compare(after, before, "<b>before</b>"))
    page = opened(path.as_uri())
    page.click("nav a[href='#compare']")
    assert page.inner_text("#compare h2") == "Compared with <b>before</b>"
    assert page.inner_text("#compare .said") == "Regression. 3 larger, 9 same."
    moved = page.locator("#compare > .wide tbody tr").all_inner_texts()
    assert len(moved) == 3
    assert all("peak_heap_bytes" in row and "larger" in row for row in moved)
    assert page.locator("#compare details").get_attribute("open") is None


def test_hostile_names_are_shown_as_text(opened, tmp_path):
    name = "</script><img src=x onerror=alert(1)>"
    lines = group({ALWAYS: 1.02})
    bad = case(name, "all", model="<b>m</b>", backend="$x$")
    failed = Measurement(case=bad, metric="seconds", state="crashed", reason="<svg onload=alert(2)>")
    page = opened(written(run_of([*lines, failed], planned=[bad]), tmp_path))
    pick(page, "verdict", "crashed")
    assert column(page, "strategy") == [name]
    assert column(page, "reason") == ["<svg onload=alert(2)>"]
    assert page.locator("img").count() == 0


def test_beyond_what_a_page_holds_it_says_so_and_shows_as_few_rows_at_once(opened, tmp_path):
    """The few rows at once are what keeps it quick; see reports/experiments/page.md for how quick."""
    page = opened(written(many(), tmp_path))
    assert counted(page) == MOST
    assert len(column(page, "strategy")) == 50
    assert f"the {MOST:,} that matter most" in page.inner_text("#explore")
    pick(page, "mode", "eager")
    assert 0 < counted(page) < MOST
    assert (tmp_path / "index.html").stat().st_size < 5e6


def many():
    """A run with more measurements than a page holds."""
    run = synthetic_run()
    first = run.measurements[0].case
    counts = [
        Measurement(case=first.with_(model=f"model_{number}"), metric="traces", values=(1.0,))
        for number in range(MOST)
    ]
    return run_of([*run.measurements, *counts])
