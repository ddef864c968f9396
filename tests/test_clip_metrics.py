"""Metrics of clips against closed forms, on clips for which the result is known, and on trivial generators."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_cli.data.dataset import Dataset
from gan_cli.data.external import external_samples
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.moving_digits import Motion, moving_digits, placed, positions
from gan_cli.data.video.feature import Video
from gan_cli.errors import UserError
from gan_cli.metrics import clip_inputs
from gan_cli.metrics import clip_statistics as statistics
from gan_cli.metrics import identity as identity_module
from gan_cli.metrics.clip_baselines import baselines
from gan_cli.metrics.digit_judge import Judged, centred, judge_of
from gan_cli.metrics.evaluator import Evaluator, lacking
from gan_cli.metrics.features import auto, frames, pixels
from gan_cli.metrics.fid import distance, fid, moments
from gan_cli.metrics.frame_differences import differences, frame_differences
from gan_cli.metrics.frame_fid import frame_fid
from gan_cli.metrics.identity import identity
from gan_cli.metrics.motion import motion
from gan_cli.metrics.targets import targets_of

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts/reproduce"
NO_WALLS = statistics.Walls(np.full(2, -np.inf), np.full(2, np.inf))


def tracks(n: int, frame_count: int, speed: float, size: int = 32, side: int = 16) -> np.ndarray:
    """The exact positions of ``n`` moving digits, ``[n, frames, 2]``."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, n)
    directions = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    rule = Motion(1, frame_count, size, side, speed)
    starts = rng.uniform(0, size - side, (n, 2))
    return np.stack(
        [np.asarray(positions(a[None], b[None], rule))[:, 0] for a, b in zip(starts, directions, strict=True)]
    ).astype(np.float64)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def drawn(path: np.ndarray, side: int = 16, size: int = 32) -> np.ndarray:
    """A clip of a digit whose top left corner follows a path ``[frames, 2]``."""
    digit = jnp.asarray(mnist5k().arrays["x"][7, ::2, ::2, 0][:side, :side], jnp.float32)
    made = placed(digit, jnp.asarray(path, jnp.float32), size)
    return np.asarray(jnp.rint(made).astype(jnp.uint8))[..., None]


# ------------------------------------------------------------------------------------------------ motion


def test_a_digit_on_a_known_line_has_its_speed_and_direction_and_no_residual():
    velocity = np.array([0.6, -1.7])
    path = np.array([2.0, 17.0]) + velocity * np.arange(9)[:, None]
    masses, centroids = statistics.masses_and_centroids(np.stack([drawn(path)] * 2))
    # Values of 8 bits move a centroid by about a hundredth of a pixel.
    np.testing.assert_allclose(np.diff(centroids, axis=1), np.broadcast_to(velocity, (2, 8, 2)), atol=0.02)
    assert statistics.speeds(centroids) == pytest.approx(np.linalg.norm(velocity), abs=0.005)
    assert statistics.line_residuals(centroids, NO_WALLS).max() < 0.02
    assert statistics.mass_variations(masses).max() < 0.002
    assert statistics.resultant(centroids) == pytest.approx(1, abs=1e-4)


def test_bounces_have_no_residual_and_do_not_hide_jitter():
    exact = tracks(400, 12, speed=2.0)
    walls = statistics.Walls(np.zeros(2), np.full(2, 16.0))
    assert statistics.line_residuals(exact, walls).max() < 1e-4
    assert (statistics.line_residuals(exact, NO_WALLS) > 0.1).mean() > 0.2  # the windows with a bounce
    found = statistics.walls_of(exact)  # centroids turn within a step of the walls
    assert (found.low >= 0).all() and (found.low < 2).all() and (found.high > 14).all() and (found.high <= 16).all()
    assert statistics.line_residuals(exact, found).max() < 0.05
    # Far from the walls, a position is as far from a line as without walls.
    inside = 8 + 0.5 * normal(400, 12, 2)
    folded, plain = (statistics.line_residuals(inside, one) for one in (walls, NO_WALLS))
    np.testing.assert_array_equal(folded, plain)


def test_jitter_of_known_variance_has_the_known_speed_and_residual():
    deviation = 0.45
    centroids = 16 + deviation * normal(4000, 12, 2)
    # b - (a + c) / 2 has the variance 3/2 in each coordinate, a - b the variance 2: both lengths are Rayleigh.
    residual = deviation * math.sqrt(1.5) * math.sqrt(2 * math.log(2))
    assert np.median(statistics.line_residuals(centroids, NO_WALLS)) == pytest.approx(residual, rel=0.02)
    assert np.median(statistics.speeds(centroids)) == pytest.approx(deviation * math.sqrt(math.pi), rel=0.02)
    assert statistics.resultant(centroids) < 0.02


def test_resultants_of_an_axis_a_quarter_and_uniform_directions():
    line = np.stack([np.zeros(10), np.arange(10.0)], axis=1)
    both = np.stack([line, -line])
    assert (statistics.resultant(both[:1]), statistics.resultant(both)) == pytest.approx((1, 0))
    assert statistics.resultant(both, 2) == pytest.approx(1)
    # The mean of exp(i angle) over the angles from 0 to w has the length sin(w / 2) / (w / 2).
    angles = (np.arange(1000) + 0.5) / 1000 * np.pi / 2
    quarter = np.stack([np.zeros((1000, 2)), np.stack([np.sin(angles), np.cos(angles)], axis=1)], axis=1)
    assert statistics.resultant(quarter) == pytest.approx(math.sin(np.pi / 4) / (np.pi / 4), abs=1e-5)
    assert statistics.resultant(np.zeros((3, 5, 2))) == 0  # without motion


def test_mass_variation_and_black_frames():
    clip = np.zeros((1, 2, 4, 6, 1), np.uint8)
    clip[0, 0, 1, 2], clip[0, 1, 1, 2] = 100, 50  # mean 75, standard deviation 25
    masses, centroids = statistics.masses_and_centroids(clip)
    assert statistics.mass_variations(masses)[0] == pytest.approx(1 / 3)
    assert centroids[0].tolist() == [[1, 2], [1, 2]]
    masses, centroids = statistics.masses_and_centroids(np.zeros((2, 3, 4, 6, 3), np.uint8))
    assert (centroids == [1.5, 2.5]).all()
    assert statistics.mass_variations(masses).tolist() == [0, 0]


def test_speeds_of_clips_with_little_noise_have_a_small_distance():
    # The median step of all real clips is exactly the speed, so its distance would be above 0.5.
    real = tracks(2000, 12, speed=2.0)
    clips = np.zeros((2, 12, 8, 8, 1), np.uint8)
    found = motion().function(clips, real_centroids=real)
    assert (found["speed_ks"], found["speed_ratio"]) == (1, 0)
    with pytest.MonkeyPatch.context() as patch:
        noisy = tracks(1000, 12, speed=2.0) + 0.05 * normal(1000, 12, 2)
        patch.setattr(statistics, "masses_and_centroids", lambda clips: (np.ones((1000, 12)), noisy))
        found = motion().function(clips, real_centroids=real)
    assert found["speed_ks"] < 0.1
    assert found["speed_ratio"] == pytest.approx(1, abs=0.01)
    assert found["line_residual"] < 0.08


# --------------------------------------------------------------------------------- identity and differences


def test_windows_follow_the_digit():
    far = centred(drawn(np.array([[1.0, 3.0], [12.0, 9.0], [16.0, 0.0]]))[None], 21)
    np.testing.assert_array_equal(far[0, 0], far[0, 1])
    np.testing.assert_array_equal(far[0, 0], far[0, 2])  # partly outside of the frame
    assert far.shape == (1, 3, 21, 21, 1)


def test_identity_from_known_classes(monkeypatch):
    class Stub:
        accuracy = 0.98
        real = Judged(np.zeros((2, 3), int), np.ones((2, 3)))

        def __call__(self, clips):
            # Half of the frames are 3, a quarter 5 and a quarter 7: entropy 1.5 bits.
            return Judged(np.array([[3, 3, 3, 3], [5, 5, 7, 7]]), np.full((2, 4), 0.6))

    monkeypatch.setattr(identity_module, "judge_of", lambda data: Stub())
    found = identity().function(np.zeros((2, 4, 8, 8, 1), np.uint8), None)
    assert found["identity_kept"] == pytest.approx(5 / 6)
    assert found["identity_confidence"] == pytest.approx(0.6)
    assert found["classes_effective"] == pytest.approx(2**1.5)
    assert (found["rarest_class"], found["identity_kept_real"], found["judge_accuracy"]) == (0, 1, 0.98)


def test_differences_of_a_linear_ramp_grow_with_the_lag():
    ramp = (10 * np.arange(6, dtype=np.uint8))[None, :, None, None, None] + np.zeros((3, 1, 4, 4, 1), np.uint8)
    assert differences(ramp) == {1: 10, 2: 20, 4: 40}
    assert differences(ramp[:, :3]) == {1: 10, 2: 20}
    found = frame_differences().function(np.zeros_like(ramp), ramp)
    assert found["frame_difference_error"] == pytest.approx(70 / 3)
    assert frame_differences().function(ramp, ramp)["frame_difference_error"] == 0


# ------------------------------------------------------------------------------------------------ features


@pytest.fixture(scope="module")
def data() -> Dataset:
    return moving_digits(digits=1, size=32, digit_size=16, frames=12, speed=2.0, clips=1500)


def test_features_of_frames_are_those_of_the_frames_side_by_side(data):
    found = auto(data)
    assert found.name == "thumbnails (8x8 pixels) of 4 frames at an interval of 3"
    clips = data.take(np.arange(20))["x"]
    features, logits = found([clips])
    assert (features.shape, logits, found.frames) == ((20, 4 * 64), None, 4)
    small = jax.image.resize(data.feature.encode(jnp.asarray(clips[:, 6])), (20, 8, 8, 1), "linear")
    np.testing.assert_allclose(features[:, 128:192], small.reshape(20, -1), atol=1e-5)
    first = frames(data, frames=1)
    assert first.name == "thumbnails (8x8 pixels) of 1 frames"
    np.testing.assert_array_equal(first([clips])[0], features[:, :64])
    with pytest.raises(UserError, match="need clips of 13 frames, but the clips of moving_digits have 12"):
        frames(data, frames=4, interval=4)
    with pytest.raises(UserError, match="features=frames: needs clips, but mnist5k consists of images"):
        frames(mnist5k())


def test_the_order_of_frames_counts_for_clips_and_not_for_frames(data):
    clips = data.take(np.arange(1500))["x"]
    metrics = {"fid": fid(), "frame_fid": frame_fid()}
    evaluator = Evaluator(metrics, targets_of(data, {}, auto), data, 1500)
    assert evaluator({"generate": [clips]}) == pytest.approx({"fid": 0, "frame_fid": 0}, abs=1e-3)
    reordered = clips[:, [0, 6, 2, 9, 1, 4, 3, 7, 8, 6, 10, 11]]  # the frames 0, 3, 6, 9 become 0, 9, 3, 6
    changed = evaluator({"generate": [reordered]})
    assert changed["fid"] > 1
    assert changed["frame_fid"] == pytest.approx(0, abs=1e-3)
    static = clips[:, :1].repeat(12, axis=1)
    ends = (auto(data)([one])[0].reshape(6000, 64) for one in (static, clips))
    assert evaluator({"generate": [static]})["frame_fid"] == pytest.approx(distance(*map(moments, ends)), rel=1e-3)


# ----------------------------------------------------------------------------------------- needs, wrong input


def test_metrics_of_clips_refuse_other_data(data):
    def lack(metric, own, kind=auto):
        return lacking(metric, targets_of(own, {}, kind), own)

    images, several = mnist5k(), moving_digits(digits=2, size=32, digit_size=14, frames=5, clips=10)
    short = moving_digits(digits=1, size=32, digit_size=14, frames=2, clips=10)
    for metric in (motion(), identity()):
        assert lack(metric, data) is None
        assert "clips of one moving digit, but moving_digits has none" in lack(metric, several)
        assert "clips of one moving digit, but mnist5k has none" in lack(metric, images)
    assert lack(frame_differences(), several) is None
    assert "clips, but mnist5k has none" in lack(frame_differences(), images)
    assert "features=frames" in lack(frame_fid(), data, pixels)
    assert "at least 3 frames" in lack(motion(), short)


def test_clips_of_other_programs(data, tmp_path):
    clips = data.take(np.arange(8))["x"]
    np.savez(tmp_path / "clips.npz", samples=clips)
    found = external_samples(tmp_path / "clips.npz", data.feature)
    assert found.feature == Video(12, 32, 32, 1)
    np.testing.assert_array_equal(found.arrays["x"], clips)
    evaluator = Evaluator({"motion": motion()}, targets_of(data, {}, auto), data, 8)
    values = evaluator({"generate": [found.arrays["x"]]})
    assert values.keys() == motion().figures.keys()
    np.savez(tmp_path / "scaled.npz", samples=clips / 255)
    with pytest.raises(UserError, match=r"clips must have values in 0\.\.255"):
        external_samples(tmp_path / "scaled.npz", data.feature)
    with pytest.raises(UserError, match=r"the shape \(11, 32, 32, 1\)"):
        np.savez(tmp_path / "short.npz", samples=clips[:, :11])
        external_samples(tmp_path / "short.npz", data.feature)


# ---------------------------------------------------------------------------------------- trivial generators


@pytest.fixture
def video(monkeypatch):
    """The module ``scripts/reproduce/video.py``."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("video")


def test_trivial_motion_fails_a_bar(data, video):
    inputs = clip_inputs.of_data(data)
    bars = [bar for bar in video.BARS if bar.column in motion().figures]
    failed = {}
    for name, clips in baselines(data, 300).items():
        values = motion().computed(inputs | {"fake_clips": clips})
        failed[name] = {bar.column for bar in bars if not bar.passed(values)}
    assert failed.pop("held-out clips") == failed.pop("training clips") == set()
    assert "speed_ratio" in failed["static frame"] & failed["black"] & failed["white noise"]
    assert "line_residual" in failed["jittering digit"] & failed["shuffled frames"]
    assert "direction_resultant_doubled" in failed["one real frame, rolled along an axis"]
    assert "direction_resultant" in failed["one clip repeated"]


@pytest.mark.slow
def test_the_judge_recognises_digits_and_its_figures_fail_what_motion_does_not(video):
    data = video.data()
    judge = judge_of(data)
    assert judge.accuracy >= 0.97
    values = {name: identity().function(clips, data) for name, clips in baselines(data, 300).items()}
    for name in ("held-out clips", "training clips", "shuffled frames"):
        assert values[name]["identity_kept"] > 0.95
        assert values[name]["classes_effective"] > 9
    assert values["white noise"]["identity_kept"] < 0.6
    assert values["one clip repeated"]["classes_effective"] < 2
    assert values["black"]["classes_effective"] == pytest.approx(1)
