"""Pictures and the figures in them: round ticks, labels that keep apart, bars that meet."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from report_world import START, a_comparison, a_run, priced, spared

from negawatt.proof import charts, formats, page
from negawatt.proof.summary import series_of, summarise


def test_the_waterfall_ends_where_it_should():
    """Each bar starts where the one before ended; what the decisions do not explain has a bar of its own."""
    none = [priced(i, 1.0) for i in range(10)]
    every = [spared(r, "exact_cache") for r in none[:4]] + [spared(r, "coalesce") for r in none[4:6]] + none[6:]
    bars = page.bars(summarise(a_comparison(none, every)))
    assert [bar.kind for bar in bars] == ["total", "saved", "saved", "total"]
    assert all(after.start == pytest.approx(before.end) for before, after in pairwise(bars[:-1]))
    cheaper = [priced(i, 0.5) for i in range(10)]
    bars = page.bars(summarise(a_comparison(none, cheaper)))
    assert [(bar.kind, bar.end) for bar in bars] == [("total", 10.0), ("rest", 5.0), ("total", 5.0)]


@pytest.mark.parametrize("width", page.WIDTHS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_tick_labels_do_not_touch(width, scale):
    """Whatever the amounts, the labels under a picture keep apart and inside it."""
    run = a_run(100, 30, scale=scale)
    made = [page.waterfall(summarise(run)), page.spending(summarise(run), series_of(run))]
    for picture in made:
        root = ElementTree.fromstring(picture.wide if width == page.WIDTHS[0] else picture.narrow)
        labels = [e for e in root.iter() if e.get("class") == "tick" and e.get("text-anchor") == "middle"]
        spans = [(float(e.get("x")) - 3.4 * len(e.text), float(e.get("x")) + 3.4 * len(e.text)) for e in labels]
        assert spans
        assert all(one[1] < other[0] for one, other in pairwise(spans))
        assert spans[0][0] >= -1
        assert spans[-1][1] <= width + 1


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [(0, 10, 6, [0, 2, 4, 6, 8, 10]), (0, 0.034, 4, [0, 0.02]), (-3, 7, 6, [-2, 0, 2, 4, 6]), (5, 5, 4, [5])],
)
def test_ticks_are_round_numbers(low, high, most, expected):
    """One, two or five times a power of ten apart, within the range, and not too many."""
    assert charts.nice_ticks(low, high, most) == pytest.approx(expected)


def test_a_wide_spread_of_latencies_is_drawn_in_powers_of_ten():
    """From 2 ms to 20 s the axis is logarithmic, and what took no time at all is put on its left end."""
    axis = charts.latency_axis([0.0, 2.0, 300.0, 20_000.0], 8)
    assert axis.log
    assert axis.ticks[0][1] == "≤ 1 ms"
    assert axis.at(0.0, 0, 100) == 0.0
    assert axis.at(20_000.0, 0, 100) == 100.0
    assert not charts.latency_axis([0.0, 900.0, 2000.0], 8).log


def test_dates_stand_under_a_ledger_and_elapsed_time_under_a_replay():
    """Ticks fall on round times of day in UTC, or on round spans since the first call."""
    assert charts.time_axis(START, START + 3600, 4, dated=True).ticks[0][1] == "14:20"
    assert [label for _, label in charts.time_axis(0, 3600, 4, dated=False).ticks] == [
        "0",
        "20 min",
        "40 min",
        "60 min",
    ]
    assert charts.time_axis(START, START + 90 * 86_400, 5, dated=True).ticks[0][1] == "24 Oct"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.usd(None), "unknown"), (formats.usd(0), "$0"), (formats.usd(0.000123456), "$0.000123"),
        (formats.usd(-3.2), "−$3.20"), (formats.usd(12345.6), "$12,346"), (formats.usd(2.5e9), "$2.50 B"),
        (formats.count(1234567), "1.23 M"), (formats.count(-12), "−12"), (formats.wh(0.0042), "4.20 mWh"),
        (formats.wh(1500), "1.50 kWh"), (formats.wh_range(0.5, 1500), "0.000500–1.50 kWh"), (formats.ms(0), "0 ms"),
        (formats.ms(0.43), "0.43 ms"), (formats.ms(90_000), "1.50 min"), (formats.grams(None), "unknown"),
        (formats.percent(0.034), "3.4 %"), (formats.percent(None), "unknown"),
    ],
)  # fmt: skip
def test_figures_are_short_and_keep_their_unit(text, expected):
    """Three digits that count, the unit that fits, a real minus, and unknown instead of nothing."""
    assert text == expected
