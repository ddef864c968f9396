"""Clips: moving digits against closed forms, readers of video files, and what a run does with clips."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, Program
from PIL import Image

import gan_cli
from gan_cli import augment, losses
from gan_cli.cli import sample
from gan_cli.config.build import experiment
from gan_cli.data import moving_digits
from gan_cli.data.inputs import read_inputs
from gan_cli.data.moving_digits import Motion
from gan_cli.data.video import files
from gan_cli.data.video.feature import Video
from gan_cli.data.video.folder import video
from gan_cli.errors import UserError
from gan_cli.models import conv, mocogan
from gan_cli.storage import marks
from gan_cli.trained import restore
from gan_cli.views import clips, report

CLIPS = [
    "dataset=moving_digits", "dataset.digits=1", "dataset.size=16", "dataset.digit_size=8", "dataset.frames=4",
    "dataset.clips=64",
]  # fmt: skip
SMALL = [*TINY, *CLIPS, "model=mocogan", "model.generator.motion_dim=2"]


# ------------------------------------------------------------------------------------------------ moving digits


def test_positions_follow_a_straight_line_that_is_reflected():
    """At speed 3 along a 3-4-5 triangle in a room of 10: the reflected position of each frame is known."""
    motion = Motion(digits=1, frames=9, size=24, digit_size=14, speed=5.0)
    start, direction = jnp.array([[1.0, 8.0]]), jnp.array([[0.6, 0.8]])
    found = np.asarray(moving_digits.positions(start, direction, motion))[:, 0]
    assert found[:, 0] == pytest.approx([1, 4, 7, 10, 7, 4, 1, 2, 5], abs=1e-5)
    assert found[:, 1] == pytest.approx([8, 8, 4, 0, 4, 8, 8, 4, 0], abs=1e-5)


def test_bilinear_interpolation_keeps_the_mass_and_moves_its_centre():
    image = np.random.default_rng(0).integers(0, 255, (5, 5)).astype(np.float32)
    corners = np.array([[0.0, 0.0], [2.25, 3.5], [6.99, 0.01], [7.0, 7.0]], np.float32)
    frames = np.asarray(moving_digits.placed(jnp.asarray(image), jnp.asarray(corners), 12))
    assert frames.sum((1, 2)) == pytest.approx(np.full(4, image.sum()), rel=1e-6)
    places = np.arange(12)
    centres = np.stack([(frames * places[:, None]).sum((1, 2)), (frames * places).sum((1, 2))], 1) / image.sum()
    assert centres - centres[0] == pytest.approx(corners, abs=1e-4)
    assert np.array_equal(frames[3, 7:, 7:], image)


def test_clips_are_functions_of_their_number():
    """Any way of reading a clip gives the same clip, and held-out clips show held-out digits."""
    data = moving_digits.moving_digits(digits=1, size=20, digit_size=10, frames=6, speed=2.0, clips=300)
    x = data.arrays["x"]
    together = data.take(np.arange(300))["x"]
    assert together.shape == (300, *data.feature.shape) and together.dtype == np.uint8
    assert np.array_equal(x[np.array([[7], [299]])][:, 0], together[[7, 299]])
    assert np.array_equal(np.asarray(jax.jit(lambda x, i: x[i])(x, jnp.array([7, 299]))), together[[7, 299]])
    digits = moving_digits.resized(moving_digits.mnist5k().held_out["x"][..., 0], 10).reshape(500, -1)
    labels = moving_digits.mnist5k().held_out["label"]
    motion = data.held_out["x"].options
    for number in range(3):
        shown = moving_digits._shown(motion, 500, 3)[number, 0]
        assert data.held_out["label"][number] == labels[shown]
        clip = data.held_out["x"][np.array([number])][0].astype(int)
        assert abs(clip.sum((1, 2, 3)) - digits[shown].astype(int).sum()).max() <= 0.01 * digits[shown].sum() + 30
    assert len(np.unique(together.reshape(300, -1), axis=0)) == 300


def test_steps_have_the_speed_and_the_start_is_uniform():
    motion = Motion(digits=2, frames=2, size=64, digit_size=28, speed=3.6)
    _, start, direction = jax.vmap(lambda i: moving_digits._drawn(i, motion, 50))(jnp.arange(2000))
    assert np.linalg.norm(direction, axis=-1) == pytest.approx(np.ones((2000, 2)), abs=1e-5)
    assert np.abs(np.asarray(direction).mean((0, 1))).max() < 0.06  # the standard error of a mean is 0.011
    assert np.asarray(start).mean((0, 1)) == pytest.approx([18, 18], abs=1)
    assert np.asarray(start).min() >= 0 and np.asarray(start).max() <= 36


def test_a_frame_without_room_is_refused():
    with pytest.raises(UserError, match=r"dataset\.size=28: leaves a digit .* no room"):
        moving_digits.moving_digits(size=28)


def test_another_speed_is_another_fingerprint():
    first, second = (moving_digits.moving_digits(speed=speed, clips=2).fingerprint() for speed in (1.0, 2.0))
    assert first != second


# ----------------------------------------------------------------------------------------------------- networks


def test_windows_make_a_convolution_of_images_a_spatio_temporal_one():
    """Against JAX's three-dimensional convolution."""
    key = jax.random.key(0)
    x = jax.random.normal(key, (2, 6, 8, 8, 3))
    kernel = jax.random.normal(jax.random.fold_in(key, 1), (4, 4, 4, 3, 5))  # [time, height, width, in, out]
    wanted = jax.lax.conv_general_dilated(
        x, kernel, (1, 2, 2), ((0, 0), (1, 1), (1, 1)), dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    seen = mocogan.windows(x, 4)
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(4, 4, 12, 5)
    found = conv.conv(seen.reshape(-1, 8, 8, 12), flat, 2).reshape(2, 3, 4, 4, 5)
    assert np.asarray(found) == pytest.approx(np.asarray(wanted), abs=1e-4)


@pytest.mark.comparison
def test_windows_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 5, 8, 8, 2)), rng.standard_normal((3, 4, 4, 2, 4))
    wanted = torch.nn.functional.conv3d(
        torch.tensor(x).permute(0, 4, 1, 2, 3),
        torch.tensor(kernel).permute(4, 3, 0, 1, 2),
        None,
        (1, 2, 2),
        (0, 1, 1),
    ).permute(0, 2, 3, 4, 1)
    seen = mocogan.windows(jnp.asarray(x, jnp.float32), 3)
    flat = jnp.asarray(kernel, jnp.float32).transpose(1, 2, 0, 3, 4).reshape(4, 4, 6, 4)
    found = conv.conv(seen.reshape(-1, 8, 8, 6), flat, 2).reshape(wanted.shape)
    assert np.asarray(found) == pytest.approx(wanted.numpy(), abs=1e-4)


def test_shifts_by_whole_and_by_half_pixels():
    images = np.zeros((1, 5, 5, 1, 1), np.float32)
    images[0, 2, 2] = 1
    by = np.array([[[[0, 0]], [[1, -2]], [[0.5, 0]], [[9, 0]]]], np.float32)
    found = np.asarray(mocogan.shifted(jnp.asarray(images), jnp.asarray(by)))[0, ..., 0, 0]
    assert found[0, 2, 2] == found[1, 3, 0] == 1
    assert found[2, 2, 2] == found[2, 3, 2] == 0.5
    assert found.sum((1, 2)).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("make", [losses.nonsaturating, losses.relativistic_average, losses.minimax])
def test_the_loss_of_heads_is_the_sum_of_their_losses(make):
    real, fake = np.random.default_rng(0).standard_normal((2, 6, 2)).astype(np.float32)
    one, heads = make(), make().of_heads()
    for player in ("discriminator", "generator"):
        wanted = sum(getattr(one, player)(real[:, i], fake[:, i]) for i in range(2))
        assert np.asarray(getattr(heads, player)(real, fake)) == pytest.approx(np.asarray(wanted), abs=1e-6)
        assert np.array_equal(
            getattr(heads, player)(real[:, 0], fake[:, 0]), getattr(one, player)(real[:, 0], fake[:, 0])
        )


def test_the_content_alone_draws_what_a_transform_moves():
    """Clips of one content and other motions show the same appearance at other places."""
    e = experiment([*SMALL, "model.generator.motion=transform", "model.generator.norm=none"])
    task = e.game.tasks["generate"]
    params, net_state = e.game.init(jax.random.key(0))
    latents = np.random.default_rng(0).standard_normal((2, task.inputs["latents"].size)).astype(np.float32)
    latents[:, 10:] = latents[0, 10:]  # 5 noise vectors of 2 values, then the content
    network = e.game.network("generator", params, net_state)
    assert network.motion_latents == 10
    made = [network.frame(latents[:, 10:], train=False, key=jax.random.key(0))]
    assert np.array_equal(made[0][0], made[0][1])
    clips = e.game.decode(params, net_state, jnp.asarray(latents), None)
    assert clips.shape == (2, 4, 16, 16, 1) and not np.array_equal(clips[0], clips[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dataset=mnist5k"], "model=mocogan: generates clips, but the examples of the data set are images"),
        (["model.generator.objects=2"], "needs model.generator.motion=transform"),
        (["model.discriminator.seen_frames=9"], "a clip has 4 frames"),
        (["model.conditional=projection"], "needs a discriminator with one output layer"),
        (["dataset.size=17"], r"model=mocogan: cannot generate frames of 17 x 17 x 1\..*e\.g\. dataset\.size=16"),
        (["model=dcgan"], "model=dcgan: generates images, but the examples of the data set are clips"),
    ],
)
def test_options_that_do_not_fit_clips_are_refused(options, message):
    chosen = SMALL
    if options == ["dataset=mnist5k"]:
        chosen = [option for option in SMALL if not option.startswith("dataset")]
    if options == ["model=dcgan"]:
        chosen = [*TINY, *CLIPS]
    with pytest.raises(UserError, match=message):
        experiment([*chosen, *options])


def test_augmentations_change_the_frames_of_a_clip_alike():
    frame = jax.random.uniform(jax.random.key(0), (6, 1, 16, 16, 1), minval=-1)
    still = jnp.broadcast_to(frame, (6, 3, 16, 16, 1))
    for one in (augment.diffaugment(), augment.adaptive()):
        state = {"p": jnp.ones(())} if one.start else ()
        seen = np.asarray(one.apply(still, jax.random.key(1), 0, state))
        assert seen.shape == still.shape and not np.allclose(seen, still)
        assert seen[:, 1:] == pytest.approx(np.broadcast_to(seen[:, :1], seen[:, 1:].shape), abs=1e-6)


# ------------------------------------------------------------------------------------------------------ readers


def frames_of(count: int, size: tuple[int, int] = (24, 20)) -> list[Image.Image]:
    """Frames of a flat colour: 10 times the number of the frame."""
    return [Image.new("RGB", size, (10 * i,) * 3) for i in range(count)]


def write_video(path, count: int, size: tuple[int, int] = (24, 20)) -> None:
    """A lossless video of ``count`` frames, or a folder of frames without a suffix."""
    first, *others = frames_of(count, size)
    if not path.suffix:
        path.mkdir(parents=True)
        for i, frame in enumerate([first, *others]):
            frame.save(path / f"{i}.png")
    elif path.suffix == ".mp4":
        path.write_bytes(files.mp4([first, *others]))
    else:
        more = {"lossless": True} if path.suffix == ".webp" else {}
        first.save(path, save_all=True, append_images=others, duration=50, **more)


MP4 = pytest.param(".mp4", marks=pytest.mark.skipif(not importlib.util.find_spec("av"), reason="needs av"))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", "", MP4])
def test_every_format_is_cut_into_clips(tmp_path, suffix):
    """11 frames, every second of 3: two clips, which start at the frames 0 and 6."""
    write_video(tmp_path / f"a{suffix}", 11)
    data = video(path=str(tmp_path), frames=3, every_nth=2, size=(10, 12), channels=1, stream=False)
    assert data.feature == Video(3, 10, 12, 1) and data.size == 2
    streamed = video(path=str(tmp_path), frames=3, every_nth=2, size=(10, 12), channels=1, stream=True)
    assert streamed.streams
    for one in (data, streamed):
        found = one.take(np.arange(2))["x"].astype(int)
        assert np.abs(found.mean((2, 3, 4)) - [[0, 20, 40], [60, 80, 100]]).max() <= (3 if suffix == ".mp4" else 0)


def test_files_that_cannot_be_used_are_skipped_and_counted_or_refused(tmp_path):
    write_video(tmp_path / "good.gif", 5)
    write_video(tmp_path / "short.gif", 2)
    (tmp_path / "broken.gif").write_bytes(b"no picture")
    Image.new("L", (8, 8)).save(tmp_path / "still.png")
    write_video(tmp_path / "mixed", 4)
    Image.new("RGB", (9, 9)).save(tmp_path / "mixed" / "9.png")
    (tmp_path / "notes.txt").write_text("text")
    data = video(path=str(tmp_path), frames=4)
    assert data.size == 1
    assert data.passed_over == {"videos that cannot be used": 3, files.OUTSIDE: 1, "other files": 1}
    for name, reason in (
        ("good.gif", "it has 5 frames, and a clip spans 6"),
        ("broken.gif", "not a video of a known format"),
        ("mixed", "its frames differ in size"),
    ):
        alone = tmp_path / "alone" / name
        alone.parent.mkdir()
        (tmp_path / name).rename(alone)
        with pytest.raises(UserError, match=rf"{name}: the clip cannot be read \({reason}"):
            video(path=str(alone.parent), frames=6, on_error="refuse")
        with pytest.raises(UserError, match="contains no video of at least 6 frames"):
            video(path=str(alone.parent), frames=6)
        alone.rename(tmp_path / f".{name}")
        alone.parent.rmdir()
    with pytest.raises(UserError, match="there is no such folder"):
        video(path=str(tmp_path / "missing"))


def test_a_file_and_frames_without_a_sub_folder_are_answered_with_what_to_do(tmp_path, monkeypatch, caplog):
    write_video(tmp_path / "frames", 12)
    with pytest.raises(UserError, match="If its pictures are the frames of a video, put them into a sub-folder"):
        video(path=str(tmp_path / "frames"), frames=4)
    assert not caplog.records
    for i in range(20):
        (tmp_path / f"{i}.gif").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"dataset\.path=1\.gif: is a file\. Set its folder, dataset\.path=\.\."):
        video(path="1.gif")
    assert video(path=".", frames=4).passed_over == {"videos that cannot be used": 20}
    assert len(caplog.records) == 11


def test_a_video_is_decoded_in_one_pass(tmp_path, monkeypatch):
    """A GIF file is opened twice: for its length and for all of its clips."""
    write_video(tmp_path / "a.gif", 12)
    opened, count = files._opened, []
    monkeypatch.setattr(files, "_opened", lambda file: count.append(file) or opened(file))
    assert video(path=str(tmp_path), frames=2, size=8, stream=False).size == 6
    assert len(count) == 2


def test_a_damaged_frame_costs_its_clip_alone(tmp_path):
    write_video(tmp_path / "a", 12)
    damaged = tmp_path / "a" / "5.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    data = video(path=str(tmp_path), frames=2, size=8, stream=False)
    assert data.take(np.arange(5))["x"].mean((1, 2, 3, 4)).tolist() == [5, 25, 65, 85, 105]


@pytest.mark.skipif(not importlib.util.find_spec("av"), reason="needs av")
def test_a_clip_of_an_mp4_file_is_decoded_from_a_key_frame(tmp_path):
    """Frames at irregular times, in groups of 8 that refer to each other (open GOP), against one pass."""
    import av

    file = tmp_path / "a.mp4"
    with av.open(str(file), "w") as container:
        settings = {"g": "8", "x264-params": "open-gop=1:bframes=3:scenecut=0"}
        stream = container.add_stream("libx264", rate=30, options=settings)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 3000)
        for i in range(60):
            frame = av.VideoFrame.from_image(Image.new("L", (64, 48), 4 * i))
            frame.pts, frame.time_base = 100 * i + 7 * i**2 % 50, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    recording = files.Recording("a", file)
    whole = files.read(recording, range(60), (48, 64, 1))
    for start in range(0, 57, 3):
        assert np.array_equal(files.read(recording, range(start, start + 4), (48, 64, 1)), whole[start : start + 4])
    times = files._times(file, 0)
    assert times[30][0] < times[50][1] <= times[50][0]
    with pytest.raises(files.BadImage, match="it has 60 frames, and frame 63 is needed"):
        files.read(recording, range(58, 64), (48, 64, 1))


def test_whole_videos_are_held_out(tmp_path):
    for i in range(4):
        write_video(tmp_path / f"{i}.gif", 9 - i)
    data = video(path=str(tmp_path), frames=2, hold_out=0.25)
    assert data.held_out_size in (3, 4) and data.size + data.held_out_size == 4 + 4 + 3 + 3


def test_mp4_without_av_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"MP4 files need the package av\. Install it: pip install"):
        video(path=str(tmp_path))


def test_the_input_of_a_task_is_the_end_of_a_video(tmp_path):
    write_video(tmp_path / "a.gif", 9)
    found, names = read_inputs(tmp_path / "a.gif", {"past": Video(3, 20, 24, 1)})
    assert found["past"].mean((2, 3, 4)).tolist() == [[60, 70, 80]] and names == ["a.gif"]
    with pytest.raises(UserError, match="it has 9 frames, and 10 are needed"):
        read_inputs(tmp_path / "a.gif", {"past": Video(10, 20, 24, 1)})
    found, _ = read_inputs(tmp_path / "a.gif", {"past": Video(3, 20, 24, 1)}, every_nth=3)
    assert found["past"].mean((2, 3, 4)).tolist() == [[20, 50, 80]]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_keeps_equal_frames(tmp_path, channels):
    """Pillow joins equal neighbouring frames. A clip that stands still has the same length after writing."""
    clip = np.random.default_rng(0).integers(0, 256, (1, 1, 16, 16, channels), np.uint8).repeat(6, axis=1)
    clip[:, 4:] = 255 - clip[:, 4:]
    (tmp_path / "a.gif").write_bytes(clips.animation(clip))
    (found,) = video(path=str(tmp_path), frames=6, size=16, channels=channels).take(np.arange(1))["x"].astype(int)
    assert np.array_equal(found[0], found[3]) and np.array_equal(found[4], found[5])
    assert np.abs(found - clip[0]).max() <= (0 if channels == 1 else 40)  # a frame has at most 256 colours
    past, _ = read_inputs(tmp_path / "a.gif", {"past": Video(6, 16, 16, channels)})
    assert np.array_equal(past["past"][0], found)


# --------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a short run, whose generator moves what it draws."""
    folder = tmp_path_factory.mktemp("clips")
    with contextlib.chdir(folder):
        gan_cli.train([*SMALL, *MOVED, "train.sample_every=4", "name=whole"], quiet=True)
    return folder / "outputs" / "whole"


MOVED = ["model.generator.motion=transform"]


def test_training_draws_film_strips_and_animations(run):
    assert {path.name for path in (run / "samples").iterdir()} >= {"real.gif", "real.png", "8.gif", "8.png"}
    assert marks.verify(run / "samples" / "8.gif").fits
    assert marks.verify(run / "samples" / "real.gif").mark is None
    described = json.loads((run / "run.json").read_text())["spec"]["x"]
    assert described == {"kind": "Video", "frames": 4, "height": 16, "width": 16, "channels": 1}


def test_the_report_plays_the_animations(run, tmp_path):
    page = report.write(run, tmp_path / "report.html").read_text()
    assert page.count("data:image/gif;base64,") == 2
    assert '"title":"samples at step 8"' in page


def test_samples_are_written_as_arrays_strips_and_animations(run, tmp_path, capsys):
    assert sample.main([str(run), "--num", "3", "--out", str(tmp_path / "v.npz")]) == 0
    made = np.load(tmp_path / "v.npz")["samples"]
    assert made.shape == (3, 4, 16, 16, 1) and made.dtype == np.uint8
    for arguments in (["--out", "c.gif"], ["--out", "c.png"], ["--draw", "codes", "--num", "2", "--out", "d.gif"]):
        *others, name = arguments
        assert sample.main([str(run), *others, str(tmp_path / name)]) == 0
        assert marks.verify(tmp_path / name).fits
    capsys.readouterr()
    for arguments, message in (
        (["--out", str(tmp_path / "folder")], "are clips. Use --out FILE.gif"),
        (["--draw", "sefa", "--out", str(tmp_path / "s.png")], "needs images"),
        (["--draw", "codes", "--out", str(tmp_path / "c.csv")], "writes a .gif or .mp4 or .png file"),
        (["--class", "2"], "e.g. with model.conditional=concat"),
    ):
        assert sample.main([str(run), *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("av"), reason="needs av")
def test_samples_are_written_as_mp4(run, tmp_path):
    assert sample.main([str(run), "--num", "1", "--out", str(tmp_path / "one.mp4")]) == 0
    assert files.length(files.Recording("one", tmp_path / "one.mp4")) == 4


@pytest.mark.slow
def test_a_stopped_run_of_clips_resumes_exactly(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gan_cli.train([*SMALL, *MOVED, "train.sample_every=4", "train.steps=4", "name=stopped"], quiet=True)
    resumed = gan_cli.train(["resume=outputs/stopped", "train.steps=8"], quiet=True)
    states = [restore.restore_run(one).state for one in (run, resumed.directory)]
    assert jax.tree.all(jax.tree.map(np.array_equal, states[0].params, states[1].params))


@pytest.mark.slow
def test_exports_and_ensembles_of_clips(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sample.main([str(run), "--export", str(tmp_path / "export")]) == 0
    facts = json.loads((tmp_path / "export" / "generator.json").read_text())
    assert facts["samples"]["shape"] == ["n", 4, 16, 16, 1]
    gan_cli.train([*SMALL, *MOVED, "train.ensemble=2", "name=two"], quiet=True)
    members = [restore.restore_run(Path("outputs/two/members") / str(i)).state.params for i in range(2)]
    alone = restore.restore_run(run).state.params
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-4), members[0], alone))
    assert not jax.tree.all(jax.tree.map(np.array_equal, *members))


@pytest.mark.slow
def test_the_future_of_a_clip_is_predicted(tmp_path, monkeypatch):
    """The task continue keeps the past, every second of the last frames of the input, and generates the rest."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        write_video(tmp_path / "videos" / f"{i}", 25, (16, 16))
    data = ["dataset=video", "dataset.path=videos", "dataset.frames=4", "dataset.size=16", "dataset.every_nth=2"]
    more = ["dataset.channels=1", "game=forecast", "game.horizon=2", "name=future"]
    gan_cli.train([*TINY, *data, *more], quiet=True)
    write_video(tmp_path / "clip.gif", 5, (16, 16))
    arguments = ["--task", "continue", "--input", "clip.gif", "--out", "next.npz"]
    assert sample.main(["outputs/future", *arguments]) == 0
    made = np.load("next.npz")["samples"]
    assert made.shape == (1, 4, 16, 16, 1)
    assert made[0, :2].mean((1, 2, 3)).tolist() == [20, 40]


@pytest.mark.slow
def test_a_vae_of_clips_reconstructs_clips():
    e = experiment([*SMALL, "game=vae", "model.encoder.width=8"])
    program = Program(e)
    assert np.isfinite(program.run(4)["vae/elbo"]).all()
    assert e.game.tasks["reconstruct"].outputs["samples"] == e.dataset.feature
