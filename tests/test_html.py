"""The page: what stands in it, that nothing from a record can become markup, what it leaves out."""

import json
import re

import pytest
from test_claims import ALWAYS, case, group, heap, run_of

from hiddencost.page.compared import compare
from hiddencost.page.drawings import DARK, at_night, inline, palette
from hiddencost.page.html import html
from hiddencost.page.rows import rows_of
from hiddencost.page.strips import strips
from hiddencost.plots.style import contrast
from hiddencost.records import Case, Figure, Measurement
from hiddencost.stats import Table


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.S)
    return json.loads(text)


def test_the_page_has_an_answer_for_each_question_and_every_measurement():
    run = run_of(group({ALWAYS: 1.02}))
    page = html(run, [])
    assert page.count('<article class="answer"') == 10
    assert '<span class="word no">does not hold</span> No, as far as it was measured.</p>' in page
    assert "<p>Always returning every hidden state multiplies the time by" in page
    data = data_of(page)
    kept = {(m.case, m.metric) for m in run.measurements}
    assert data["count"] == len(kept)
    assert f"All {len(kept)} of this run, one for each case and metric." in page
    ratio = data["columns"]["ratio"]
    assert any(value == pytest.approx(1.02, rel=1e-3) for value in ratio if value)


def test_hostile_names_are_text():
    failed = Measurement(
        case=case("</script><img src=x>", "all"), metric="seconds", state="crashed", reason="</script><b>"
    )
    page = html(run_of([*group({ALWAYS: 1.02}), failed]), [])
    assert page.count("</script>") == page.count("<script") == 2
    assert "<img" not in page
    assert "<b>&lt;" not in page
    data = data_of(page)
    assert "</script><img src=x>" in data["words"]
    assert "crashed" in data["words"]


def test_an_empty_run_has_a_page():
    page = html(run_of([]), [])
    assert page.count("not measured</span>") == 8
    assert data_of(page)["count"] == 0
    assert "None were drawn." in page


def test_beyond_the_most_what_failed_is_kept_first_then_the_farthest_times():
    middle = ("functional_submodel", "middle")
    near, far = case(*ALWAYS), case(*middle)
    lines = group({ALWAYS: 1.02, middle: 0.5})
    peaks = heap({("final_only", "output"): 10, ALWAYS: 20, middle: 10.5})
    other = Measurement(case=far, metric="traces", values=(1.0,))
    bad = Measurement(case=case("get_layer_name", "all"), metric="seconds", state="crashed", reason="fell")
    table = Table(run_of([*lines, *peaks, other, bad]))

    def kept(most: int) -> list[tuple[str, Case]]:
        rows, count = rows_of(table, {}, most)
        assert count == 9
        return [(row.metric, row.case) for row in rows]

    assert kept(2) == [("seconds", far), ("seconds", bad.case)]
    assert kept(3) == [("seconds", near), ("seconds", far), ("seconds", bad.case)]
    assert kept(6)[4:5] == [("peak_heap_bytes", near)]
    assert set(kept(8)) == set(kept(9)) - {("peak_heap_bytes", near.group)}


def test_a_strip_places_its_figures_and_one():
    (strip,) = strips([Figure(name="time", value=v, low=v / 1.1, high=v * 1.1) for v in (2.0, 0.5)])
    low, high = strip.marks
    assert (low.told, high.told) == ("0.50 [0.45, 0.55]", "2.00 [1.82, 2.20]")
    assert low.x + high.x == pytest.approx(2 * (strip.one or 0), abs=0.2)  # on a log axis: as far from 1
    assert strips([Figure(name="alone", value=1.0)]) == []


def test_colours_at_night_stand_out_and_greys_turn_over():
    from matplotlib.colors import to_rgb

    for colour in ("#0072B2", "#8C1D40", "#00543D", "#000000"):
        assert contrast(to_rgb(at_night(colour)), to_rgb(DARK)) >= 4.5
    assert at_night("#ffffff") == DARK


def test_a_drawing_has_ids_of_its_own_and_tells_its_values(tmp_path):
    svg = tmp_path / "p.svg"
    svg.write_text(
        '<?xml version="1.0"?>\n<svg width="1pt" viewBox="0 0 1 1"><defs><path id="m"/></defs>'
        '<g class="told"><title>a &lt; b: 1</title><use xlink:href="#m" style="fill: #0072b2"/></g></svg>'
    )
    drawn = inline(svg, "overhead", 'says "x"')
    assert drawn.startswith('<svg viewBox="0 0 1 1" role="img" aria-label="says &quot;x&quot;">')
    assert 'id="overhead-m"' in drawn
    assert 'xlink:href="#overhead-m"' in drawn
    assert 'data-told="a &lt; b: 1"' in drawn
    assert palette([drawn]) == [("--c-0072b2", "#0072b2", at_night("#0072b2"))]


def test_a_backslash_in_a_title_is_text(tmp_path):
    svg = tmp_path / "p.svg"
    svg.write_text('<svg width="1pt" viewBox="0 0 1 1"></svg>')
    assert inline(svg, "overhead", r"a \g<9> b") == (
        r'<svg viewBox="0 0 1 1" role="img" aria-label="a \g&lt;9&gt; b"></svg>'
    )


def test_a_run_that_cannot_be_compared_says_why():
    run = run_of(group({ALWAYS: 1.02}))
    told = compare(run, run, "before")
    assert told.verdict.startswith("Not comparable: ")
    assert not told.moved.rows
    assert '<h2 id="compare-title">Compared with before</h2>' in html(run, [], told)
