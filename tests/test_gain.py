"""The learned router: it finds what can be found, says how likely success is, and refuses what teaches nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routed import DIMENSIONS, World, known_model, known_world

from negawatt.errors import ConfigError, InputError
from negawatt.routing import gain_file, process, prompt_features
from negawatt.routing.curve import curve_of
from negawatt.routing.gain import Card, GainModel, cross_fitted
from negawatt.routing.linear import PENALTIES, fit_linear


def test_it_finds_where_the_larger_model_is_worth_it():
    """On prompts that it has not seen, its scores come near those of somebody who knows the topics."""
    new = World(600, 2)
    predicted = known_model().predict(new.texts, new.vectors)
    rng = np.random.default_rng(0)
    weak, strong = new.outcomes.T
    found = curve_of(predicted.gains[:, 0], weak, strong, rng).apgr()
    known = curve_of(new.topic % 2, weak, strong, rng).apgr()
    assert found is not None
    assert known is not None
    assert found > known - 0.03 > 0.65


def test_what_it_says_is_as_likely_as_it_says():
    """Where it predicts a success, so many succeed; and the gain that it predicts is the gain there is."""
    new = World(2000, 3)
    predicted = known_model().predict(new.texts, new.vectors)
    hard = new.topic % 2 == 1
    for rows in (hard, ~hard):
        assert np.abs(predicted.success[rows].mean(axis=0) - new.outcomes[rows].mean(axis=0)).max() < 0.07
        real = new.outcomes[rows, 1].mean() - new.outcomes[rows, 0].mean()
        assert abs(predicted.gains[rows, 0].mean() - real) < 0.07
    assert ((predicted.success >= 0) & (predicted.success <= 1)).all()


def test_of_three_candidates_each_has_its_gain():
    """The middle one is worth less to replace than the smallest; the reference has no gain over itself."""
    world = World(400, 4, candidates=3)
    predicted = world.fitted().predict(world.texts, world.vectors)
    assert predicted.gains.shape == (400, 2)
    assert predicted.success.shape == (400, 3)
    hard = world.topic % 2 == 1
    smallest, middle = predicted.gains[hard].mean(axis=0)
    assert smallest > middle + 0.1 > 0.1


def test_the_same_rows_and_seed_make_the_same_model():
    """Nothing is left to chance: not even the last bit."""
    world = known_world()
    one, other = known_model(), world.fitted()
    assert np.array_equal(one.process.weights, other.process.weights)
    assert one.card == other.card
    assert len(one.card.digest) == 64


def test_one_prompt_alone_is_predicted_like_in_company():
    """To a ten-thousandth: the caller may ask one by one."""
    world = known_world()
    together = known_model().predict(world.texts[:20], world.vectors[:20])
    for i in range(20):
        alone = known_model().predict(world.texts[i : i + 1], world.vectors[i : i + 1])
        assert np.allclose(alone.gains[0], together.gains[i], atol=1e-4)
        assert np.allclose(alone.success[0], together.success[i], atol=1e-4)


def test_what_is_like_nothing_it_learned_from_is_told_apart():
    """The caller can abstain: a vector that points elsewhere is unfamiliar, those of the same topics are not."""
    new = World(300, 5)
    assert known_model().predict(new.texts, new.vectors).familiar.mean() > 0.95
    strange = np.random.default_rng(6).normal(size=(100, DIMENSIONS)).astype(np.float32)
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    predicted = known_model().predict(["?"] * 100, strange)
    assert predicted.familiar.mean() < 0.3
    assert (predicted.nearest <= 1.0001).all()


def test_more_columns_can_tell_what_the_prompt_cannot():
    """A check of the answer that knows whether it is right is learned, and asked for ever after."""
    world = World(200, 7, routable=False)
    noise = np.random.default_rng(8).normal(size=200)
    extra = np.column_stack([world.outcomes[:, 0] + 0.1 * noise, noise])
    model = GainModel.fit(world.texts, world.vectors, world.outcomes, seed=0, extra=extra)
    predicted = model.predict(world.texts, world.vectors, extra)
    right = world.outcomes[:, 0] == 1
    assert predicted.success[right, 0].mean() > 0.8 > 0.4 > predicted.success[~right, 0].mean()
    with pytest.raises(InputError, match="fitted on other columns"):
        model.predict(world.texts, world.vectors)


def test_of_many_rows_all_are_learned_from_and_some_are_kept(monkeypatch: pytest.MonkeyPatch):
    """A decision costs the same however many rows there were, and is better for those that are not kept."""
    monkeypatch.setattr(process, "KEPT_ROWS", 100)
    world, new = World(600, 9), World(1000, 10)
    model = world.fitted()
    assert (len(model.vectors), model.card.rows) == (100, 600)
    hard = new.topic % 2
    error = np.abs(model.predict(new.texts, new.vectors).gains[:, 0] - 0.6 * hard).mean()
    few = GainModel.fit(world.texts[:100], world.vectors[:100], world.outcomes[:100], seed=0)
    assert error < np.abs(few.predict(new.texts, new.vectors).gains[:, 0] - 0.6 * hard).mean()


@pytest.mark.parametrize(("rows", "dimensions"), [(60, 20), (30, 50)])
def test_the_linear_part_leaves_each_row_out_exactly(rows: int, dimensions: int):
    """As if it were fitted anew without the row, with its mean and all: to ten digits, tall or wide."""
    rng = np.random.default_rng(rows)
    vectors, outcomes = rng.normal(size=(rows, dimensions)), (rng.random((rows, 2)) < 0.5).astype(float)
    linear, left_out = fit_linear(vectors, outcomes)

    def fitted(keep: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        x, y = vectors[keep] - vectors[keep].mean(axis=0), outcomes[keep] - outcomes[keep].mean(axis=0)
        map_ = np.linalg.solve(x.T @ x + penalty * np.eye(dimensions), x.T @ y)
        return map_, outcomes[keep].mean(axis=0) - vectors[keep].mean(axis=0) @ map_

    every = np.arange(rows)
    (penalty,) = [p for p in PENALTIES if np.allclose(fitted(every, p)[0], linear.map)]
    for row in every:
        map_, shift = fitted(every[every != row], penalty)
        assert vectors[row] @ map_ + shift == pytest.approx(left_out[row], abs=1e-10)


def test_cross_fitted_predictions_know_nothing_of_their_own_row():
    """Outcomes without reason cannot be predicted; those with reason can."""
    luck = World(300, 11, routable=False)
    found = cross_fitted(luck.texts, luck.vectors, luck.outcomes, seed=0).gains[:, 0]
    assert abs(np.corrcoef(found, luck.outcomes[:, 1] - luck.outcomes[:, 0])[0, 1]) < 0.2
    world = World(300, 12)
    found = cross_fitted(world.texts, world.vectors, world.outcomes, seed=0).gains[:, 0]
    assert np.corrcoef(found, world.outcomes[:, 1] - world.outcomes[:, 0])[0, 1] > 0.4


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400))
def test_any_text_has_a_prediction(text: str):
    """Whatever is in it: numbers between 0 and 1, and no exception."""
    predicted = known_model().predict([text], known_world().vectors[:1])
    assert np.isfinite(predicted.gains).all()
    assert ((predicted.success >= 0) & (predicted.success <= 1)).all()
    assert len(prompt_features.prompt_features(text)) == len(prompt_features.NAMES)


def test_importing_the_room_loads_no_numpy():
    """The server may import it, and stays light until it routes."""
    modules = "gain, gain_file, controls, curve, guarantee, answer_checks"
    code = f"import sys; from negawatt.routing import {modules}; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "False"


def test_worlds_with_a_flat_side_can_be_learned():
    """A reference that is always right, vectors that are all the same, texts that are all empty, no text at all."""
    world = known_world()
    always = np.column_stack([world.outcomes[:, 0], np.ones(400)])
    predicted = GainModel.fit(world.texts, world.vectors, always, seed=0).predict(world.texts, world.vectors)
    assert predicted.success[:, 1].min() > 0.9
    same = np.tile(world.vectors[:1], (400, 1))
    blind = GainModel.fit([""] * 400, same, world.outcomes, seed=0)
    gains = blind.predict(["", "x"], same[:2]).gains[:, 0]
    assert gains == pytest.approx((world.outcomes[:, 1] - world.outcomes[:, 0]).mean(), abs=0.02)
    assert blind.predict([], same[:0]).success.shape == (0, 2)


def _changed(**wrong: object) -> dict:
    world = known_world()
    return {"texts": world.texts, "vectors": world.vectors, "outcomes": world.outcomes, "seed": 0} | wrong


NAN_ROW = np.where(np.arange(800).reshape(400, 2) == 20, np.nan, 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"texts": ["a"] * 9, "vectors": np.ones((9, 3)), "outcomes": np.eye(9)[:, :2]}, "50 rows at least, and here"),
        ({"outcomes": np.ones((400, 2))}, "one label only: the gain over candidate 1 is 0"),
        ({"outcomes": np.tile([0.0, 1.0], (400, 1))}, "one label only: the gain over candidate 1 is 1"),
        ({"outcomes": np.ones((400, 2)), "card": Card(candidates=("tiny", "big"))}, "the gain over tiny"),
        ({"outcomes": NAN_ROW}, "row 11 of the outcomes is not a number"),
        ({"outcomes": np.ones((399, 2))}, "one row each"),
        ({"outcomes": np.ones((400, 1))}, "two candidates at least"),
        ({"outcomes": 2 * known_world().outcomes}, "between 0 and 1"),
        ({"vectors": np.full((400, 4), np.inf)}, "row 1 of the vectors"),
        ({"extra": np.full((400, 2), np.nan)}, "row 1 of the extra columns"),
        ({"card": Card(candidates=("a", "b", "c"))}, "2 columns of outcomes"),
    ],
)  # fmt: skip
def test_what_teaches_nothing_is_refused_by_name(wrong: dict, message: str):
    """Too few rows, one label only, no numbers, rows that do not belong together: each says what to do."""
    with pytest.raises(InputError, match=message):
        GainModel.fit(**_changed(**wrong))


def test_a_router_survives_its_file(tmp_path: Path):
    """Saved and loaded, it predicts the same to the last bit and knows what it was made from."""
    world = known_world()
    card = Card(embedder="hashing@1", candidates=("small", "large"), date="2026-11-27")
    model = GainModel.fit(world.texts, world.vectors, world.outcomes, seed=0, card=card, extra=world.outcomes)
    gain_file.save(model, tmp_path / "router.npz")
    gain_file.save(model, tmp_path / "router.npz")
    again = gain_file.load(tmp_path / "router.npz")
    assert again.card == model.card
    assert (again.card.embedder, again.card.rows, again.dimensions) == ("hashing@1", 400, DIMENSIONS)
    one, other = (m.predict(world.texts, world.vectors, world.outcomes) for m in (model, again))
    assert np.array_equal(one.gains, other.gains)
    assert np.array_equal(one.success, other.success)
    assert np.array_equal(one.familiar, other.familiar)
    assert [path.name for path in tmp_path.iterdir()] == ["router.npz"]


def test_a_file_that_is_damaged_or_no_router_is_refused(tmp_path: Path):
    """Cut off anywhere, with any byte changed, or something else: the error names the file and the remedy."""
    path = tmp_path / "router.npz"
    gain_file.save(known_model(), path)
    whole = path.read_bytes()
    expected = known_model().predict(known_world().texts[:5], known_world().vectors[:5]).gains
    rng = np.random.default_rng(0)
    damaged = [whole[: int(n)] for n in rng.integers(0, len(whole), 10)]
    for place in rng.integers(0, len(whole), 30):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    refused = 0
    for data in [*damaged, b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100]:
        path.write_bytes(data)
        try:
            model = gain_file.load(path, "route.model")
        except ConfigError as error:
            refused += 1
            assert "route.model" in str(error)
            assert str(path) in str(error)
            assert "fit it again" in str(error)
        else:
            # A byte that means nothing, such as a date within the archive, may change.
            assert np.array_equal(model.predict(known_world().texts[:5], known_world().vectors[:5]).gains, expected)
    assert refused > 35
    with pytest.raises(ConfigError, match="No such file"):
        gain_file.load(tmp_path / "none.npz")


def test_a_file_of_another_version_or_with_code_in_it_is_refused(tmp_path: Path):
    """An array of objects would be unpickled: it is not even looked at."""
    path = tmp_path / "router.npz"
    np.savez(path, header=np.array([{"made_by": "somebody"}], dtype=object))
    with pytest.raises(ConfigError, match="no router"):
        gain_file.load(path)
    gain_file.save(known_model(), path)
    with np.load(path) as file:
        found = dict(file)
    for change, message in (
        ({"format": 99}, "format 99"),
        ({"features": ["x"]}, "other features"),
        ({"sha256": ""}, "checksum"),
    ):
        header = msgspec.json.decode(found["header"].tobytes()) | change
        np.savez(path, **(found | {"header": np.frombuffer(msgspec.json.encode(header), np.uint8)}))
        with pytest.raises(ConfigError, match=message):
            gain_file.load(path)


def test_numbers_that_do_not_fit_together_are_refused(tmp_path: Path):
    """Also where their checksum is right."""
    path = tmp_path / "router.npz"
    gain_file.save(known_model(), path)
    with np.load(path) as file:
        found = dict(file)
    header = msgspec.json.decode(found.pop("header").tobytes())
    for name, array in (("means", np.zeros(9)), ("weights", found["weights"] * np.float32("nan"))):
        arrays = found | {name: array}
        changed = header | {"sha256": gain_file._sha256(arrays)}
        np.savez(path, header=np.frombuffer(msgspec.json.encode(changed), np.uint8), **arrays)
        with pytest.raises(ConfigError, match="do not fit together"):
            gain_file.load(path)
