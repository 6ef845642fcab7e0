"""Carbon: grid intensity as a range, with its zone, year and source; an unknown zone is the world, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negawatt.economics.carbon import Carbon, Grams
from negawatt.economics.energy import Joules
from negawatt.errors import ConfigError

KWH = Joules(3.6e6, 3.6e6, 3.6e6)


@pytest.mark.parametrize(
    ("zone", "low", "high"),
    [
        ("WORLD", 458, 475),
        ("USA", 369, 384),
        ("FRA", 41, 56),
        ("SWE", 35, 41),
        ("DEU", 330, 381),
        ("GBR", 217, 238),
        ("IRL", 257, 291),
        ("IND", 670, 713),
        ("CHN", 525, 582),
        ("POL", 589, 662),
    ],
)
def test_the_two_sources_make_the_range(zone, low, high):
    """Low and high are the two published figures of the zone, the central one their mean."""
    assert Carbon(zone).grams(KWH) == Grams(low, (low + high) / 2, high)


def test_a_zone_has_several_names():
    """ISO codes of two or three letters, in any case."""
    assert Carbon("fr").g_per_kwh == Carbon("FRA").g_per_kwh
    assert Carbon("uk").zone == "GBR"


@pytest.mark.parametrize("zone", [None, "XXX", ""])
def test_an_unknown_zone_is_the_world_and_marked(zone):
    """The figure is kept, and says that the zone was assumed."""
    carbon = Carbon(zone)
    assert (carbon.zone, carbon.assumed) == ("WORLD", True)
    assert not Carbon("WORLD").assumed and not Carbon("FRA").assumed


def test_a_figure_carries_year_and_source():
    """Our World in Data and Ember are named, as their licence asks."""
    carbon = Carbon("FRA")
    assert carbon.year == 2023
    assert "Our World in Data / Ember" in carbon.source and "CC BY" in carbon.source
    assert carbon.version.startswith("negawatt-carbon ")


def test_the_user_sets_a_zone_of_his_own(tmp_path: Path):
    """One figure or three, for a zone in the table or a new one."""
    file = tmp_path / "carbon.toml"
    file.write_text(
        '[[zone]]\nzone = "our-hall"\ng_per_kwh = 12\nyear = 2026\nsource = "contract"\n'
        '[[zone]]\nzone = "FRA"\ng_per_kwh = [30, 40, 50]\nyear = 2025\nsource = "RTE"\n'
    )
    hall, france = Carbon("our-hall", file), Carbon("FRA", file)
    assert hall.grams(KWH) == Grams(12, 12, 12) and not hall.assumed
    assert france.g_per_kwh == (30, 40, 50) and (france.year, france.source) == (2025, "RTE")


@pytest.mark.parametrize(
    ("figure", "where"), [("[50, 40, 30]", "zone[0].g_per_kwh"), ("-1", "zone[0].g_per_kwh"), ("'low'", "zone[0]")]
)
def test_a_bad_carbon_file_is_refused_with_its_path(tmp_path: Path, figure: str, where: str):
    """The message names the file and the field."""
    file = tmp_path / "carbon.toml"
    file.write_text(f'[[zone]]\nzone = "X"\ng_per_kwh = {figure}\nyear = 2026\nsource = "s"\n')
    with pytest.raises(ConfigError) as caught:
        Carbon("X", file)
    assert str(file) in caught.value.message and where in caught.value.message


@given(
    figures=st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3).map(sorted),
    zone=st.sampled_from(["USA", "FRA", "XXX"]),
)
@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_range_stays_ordered(figures, zone):
    """Also for a saving on balance, which may be negative."""
    grams = Carbon(zone).grams(Joules(*figures))
    assert grams.low <= grams.central <= grams.high
    assert grams + Grams(0.0, 0.0, 0.0) == grams


def test_the_example_in_the_docs_works(tmp_path: Path):
    """The zone shown in docs/energy.md is read and used."""
    page = (Path(__file__).parent.parent / "docs" / "energy.md").read_text(encoding="utf-8")
    file = tmp_path / "carbon.toml"
    file.write_text(page.split("```toml\n")[2].split("```")[0])
    assert Carbon("FRA", file).g_per_kwh == (30, 40, 50)
