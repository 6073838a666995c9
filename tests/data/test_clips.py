"""Videos and folders of frames: read right, or named with one plain sentence."""

from __future__ import annotations

import struct
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from contrique_jax.data import clips
from contrique_jax.data.image_files import find_images
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.sources import open_source
from contrique_jax.errors import BrokenImage, UserError
from tests.video_files import CODECS, pictures, write_sound, write_video


@pytest.fixture(autouse=True, scope="module")
def reader():
    return pytest.importorskip("av")


@pytest.mark.parametrize("extension", sorted(CODECS))
def test_frames_come_in_order_with_their_times(extension, tmp_path):
    file = write_video(tmp_path / f"a{extension}", pictures(12))
    found = list(clips.frames(file))
    np.testing.assert_allclose([frame.time for frame in found], np.arange(12) / 25, atol=2e-3)
    assert {frame.image.shape for frame in found} == {(48, 64, 3)}
    for i, frame in enumerate(found):  # compression costs a few codes
        assert abs(float(frame.image[40, 40:, 1].mean()) - 8 * i) < 6
    assert [frame.time for frame in clips.frames(file, every=0.2)] == [found[i].time for i in (0, 5, 10)]


def test_a_variable_rate_is_one(tmp_path):
    times = [0, 0.04, 0.5, 0.54, 2.0, 2.04]
    file = write_video(tmp_path / "a.mkv", pictures(6), times)
    np.testing.assert_allclose([frame.time for frame in clips.frames(file)], times, atol=2e-3)
    np.testing.assert_allclose([frame.time for frame in clips.frames(file, every=0.5)], [0, 0.5, 2], atol=2e-3)


def test_a_phone_held_upright(tmp_path):
    """The matrix of an mp4's track header asks for a turn to the right by 90 degrees."""
    data = write_video(tmp_path / "a.mp4", pictures(3)).read_bytes()
    at = data.index(b"tkhd") + 44
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    (tmp_path / "b.mp4").write_bytes(data[:at] + turned + data[at + 36 :])
    image = next(clips.frames(tmp_path / "b.mp4")).image
    assert image.shape == (64, 48, 3)
    red = image[..., 0] > 100
    assert red[4:28, 28:44].all() and not red[4:28, :20].any() and not red[36:].any()


def test_odd_sizes_and_single_frames(tmp_path):
    (frame,) = clips.frames(write_video(tmp_path / "odd.mkv", pictures(1, 47, 63)))
    assert frame.image.shape == (47, 63, 3) and frame.time == 0


def test_memory_does_not_grow_with_the_length(tmp_path):
    file = write_video(tmp_path / "long.mp4", pictures(240, 96, 128))  # 9 MB of pixels
    tracemalloc.start()
    count = sum(len(block) for block in clips.blocks(clips.frames(file), 16))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 240 and peak < 2e6


def broken_files(folder):
    """Name -> what its sentence says."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    whole = write_video(folder / "whole.webm", noise).read_bytes()
    (folder / "cut.webm").write_bytes(whole[: len(whole) // 2])
    (folder / "tail.webm").write_bytes(whole[: len(whole) // 2] + b"\x55" * (len(whole) // 2))
    faststart = write_video(folder / "fast.mp4", noise, movflags="faststart").read_bytes()
    (folder / "cut_fast.mp4").write_bytes(faststart[: len(faststart) // 2])
    (folder / "cut.mp4").write_bytes(
        write_video(folder / "slow.mp4", noise).read_bytes()[:20000]
    )  # its index is at the end
    (folder / "codec.avi").write_bytes(write_video(folder / "a.avi", noise[:2]).read_bytes().replace(b"FMP4", b"ZZZZ"))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all\n" * 20)
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{folder / 'fast.mp4'}\n")
    write_sound(folder / "sound.mp4")
    (folder / "nothing").mkdir()
    mixed = folder / "mixed"
    mixed.mkdir()
    for name in ("a_1.png", "b_2.png"):
        Image.fromarray(noise[0]).save(mixed / name)
    whole_only = r"damaged or cut off: only \d\.\d of 1\.6 s can be read"
    return {
        "cut.webm": whole_only, "tail.webm": whole_only, "cut_fast.mp4": whole_only,
        "cut.mp4": "not a video that can be read, damaged or cut off", "empty.mp4": "the file is empty",
        "text.mp4": "not a video", "playlist.mp4": "not a video", "sound.mp4": "holds no pictures, only sound",
        "codec.avi": "a codec that FFmpeg does not know",
        "gone.mp4": "does not exist", "nothing": "holds no frames", "mixed": "b_2.png is no frame of a sequence",
    }  # fmt: skip


def test_what_is_broken_is_one_sentence(tmp_path, capfd):
    for name, sentence in broken_files(tmp_path).items():
        with pytest.raises(BrokenImage, match=sentence):
            list(clips.frames(tmp_path / name))
    assert len(list(clips.frames(tmp_path / "whole.webm"))) == 40
    assert capfd.readouterr().err == ""  # FFmpeg keeps to itself what it thinks
    with pytest.raises(BrokenImage, match="64 x 48 pixels is more than the limit of 3000"):
        next(clips.frames(tmp_path / "fast.mp4", max_pixels=3000))


def test_without_its_reader_a_video_is_named(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", pictures(2))
    Image.fromarray(pictures(1)[0]).save(tmp_path / "b.png")
    assert [path.name for path in find_images([str(tmp_path)], videos=True).files] == ["a.mp4", "b.png"]
    assert [path.name for path in find_images([str(tmp_path)]).files] == ["b.png"]
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BrokenImage, match=r'pip install "contrique-jax\[video\]"'):
        next(clips.frames(tmp_path / "a.mp4"))
    listing = find_images([str(tmp_path)], videos=True)
    assert [path.name for path in listing.files] == ["b.png"]
    assert "1 video was left out" in listing.left_out.sentences()[0]


def test_a_folder_of_frames_is_a_clip(tmp_path):
    folder = tmp_path / "shot"
    folder.mkdir()
    for number, image in zip((2, 10, 9), pictures(3), strict=True):
        Image.fromarray(image).save(folder / f"frame_{number}.png")
    found = list(clips.frames(folder))
    np.testing.assert_array_equal(np.stack([frame.image for frame in found]), pictures(3)[[0, 2, 1]])
    write_video(tmp_path / "a.mp4", pictures(3))
    (tmp_path / "s.csv").write_text("path,mos\nshot,3\na.mp4,4\n")
    assert len(read_scores(tmp_path / "s.csv")) == 2
    (tmp_path / "t.csv").write_text("path,mos\n.,3\na.mp4,4\n")  # no frames of one clip
    with pytest.raises(UserError, match=r"line 2: path '\.' is no file"):
        read_scores(tmp_path / "t.csv")
    source = open_source(f"clips:{tmp_path}", role="authentic", field="config.data.authentic")
    assert [source.item_name(i) for i in range(len(source))] == ["a.mp4", "shot"]
    np.testing.assert_array_equal(source.load(1)[0], pictures(1)[0])
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"config.data.authentic: .*none holds no clips"):
        open_source(f"clips:{tmp_path / 'none'}", role="authentic", field="config.data.authentic")
