import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.sequence import Sequence as Items

from pacsbridge.instance import read_instance
from pacsbridge.media import previews
from pacsbridge.media.contents import Series, arrange
from pacsbridge.media.previews import Frame, choose_frames, draw

# pydicom's files are broken in many ways on purpose, and it warns of each
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:pylibjpeg")


def drawn(path: Path, index: int = 0) -> NDArray[np.uint8]:
    picture = draw(Frame(read_instance(path), 0, index, 1))
    assert picture is not None
    pixels = np.asarray(Image.open(io.BytesIO(picture.jpeg)))
    assert pixels.shape[:2] == (picture.height, picture.width)
    return pixels


def image(path: Path, pixels: NDArray[Any], **attributes: object) -> Path:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"):
        dataset.pop(keyword, None)
    dataset.NumberOfFrames = 1 if pixels.ndim == 2 else len(pixels)
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


RAMP = np.repeat(np.arange(0, 256, dtype="<u2")[np.newaxis], 64, axis=0)


def row(pixels: NDArray[np.uint8]) -> list[int]:
    return [int(value) for value in pixels[32, ::51]]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"WindowCenter": "128", "WindowWidth": "256"}, [0, 51, 102, 153, 204, 255]),
        (
            {"WindowCenter": "128", "WindowWidth": "256", "PhotometricInterpretation": "MONOCHROME1"},
            [255, 204, 153, 102, 51, 0],
        ),
        ({"WindowCenter": ["128", "9"], "WindowWidth": ["128", "9"]}, [0, 0, 76, 178, 255, 255]),
        (
            {"WindowCenter": "1128", "WindowWidth": "256", "RescaleIntercept": "1000", "RescaleSlope": "1"},
            [0, 51, 102, 153, 204, 255],
        ),
        (
            {"WindowCenter": "256", "WindowWidth": "512", "RescaleSlope": "2", "RescaleIntercept": "0"},
            [0, 51, 102, 153, 204, 255],
        ),
        (
            {"WindowCenter": "127.5", "WindowWidth": "255", "VOILUTFunction": "LINEAR_EXACT"},
            [0, 51, 102, 153, 204, 255],
        ),
        (
            {"WindowCenter": "127.5", "WindowWidth": "100", "VOILUTFunction": "SIGMOID"},
            [2, 11, 68, 187, 244, 254],
        ),
        ({}, [0, 50, 102, 153, 204, 255]),  # stretched
        (
            {"WindowCenter": "99999", "WindowWidth": "1"},
            [0, 50, 102, 153, 204, 255],
        ),  # shows nothing: stretched
        ({"WindowCenter": "128", "WindowWidth": "0"}, [0, 50, 102, 153, 204, 255]),
    ],
)
def test_gray_values(attributes: dict[str, object], expected: Sequence[int], tmp_path: Path) -> None:
    assert row(drawn(image(tmp_path / "I", RAMP, **attributes))) == pytest.approx(expected, abs=4)


def test_a_voi_lut_is_applied(tmp_path: Path) -> None:
    lut = Dataset()
    lut.add_new(0x00283002, "US", [256, 0, 16])
    lut.add_new(0x00283006, "OW", np.arange(65535, -1, -257, dtype="<u2").tobytes())
    pixels = drawn(image(tmp_path / "I", RAMP, VOILUTSequence=Items([lut])))
    assert row(pixels) == pytest.approx([255, 204, 153, 102, 51, 0], abs=4)


def test_functional_groups_give_each_frame_its_window(tmp_path: Path) -> None:
    def group(center: str) -> Dataset:
        window, outer = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, "256"
        outer.FrameVOILUTSequence = Items([window])
        return outer

    path = image(tmp_path / "I", np.stack([RAMP, RAMP]))
    dataset = pydicom.dcmread(path)
    dataset.PerFrameFunctionalGroupsSequence = Items([group("128"), group("256")])
    dataset.save_as(path)
    assert row(drawn(path, 0)) == pytest.approx([0, 51, 102, 153, 204, 255], abs=4)
    assert row(drawn(path, 1)) == pytest.approx([0, 0, 0, 25, 76, 127], abs=4)


def test_a_uniform_image_is_drawn(tmp_path: Path) -> None:
    assert drawn(image(tmp_path / "I", np.full((64, 64), 7, dtype="<u2"))).shape == (64, 64)


def test_large_images_become_small_and_keep_their_shape(tmp_path: Path) -> None:
    assert drawn(image(tmp_path / "I", np.zeros((3000, 1500), dtype="<u2"))).shape == (640, 320)


def test_pixels_that_are_no_squares_are_stretched(tmp_path: Path) -> None:
    path = image(tmp_path / "I", RAMP, PixelSpacing=["2.0", "1.0"])
    assert drawn(path).shape == (128, 256)


def test_an_image_that_is_too_large_has_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "_MAX_PIXELS", 100)
    path = image(tmp_path / "I", RAMP)
    assert draw(Frame(read_instance(path), 0, 0, 1)) is None


@pytest.mark.parametrize(
    "name",
    [
        *("SC_rgb_rle.dcm", "examples_palette.dcm", "examples_ybr_color.dcm", "US1_J2KR.dcm", "color-pl.dcm"),
        *("examples_rgb_color.dcm", "SC_rgb_16bit.dcm", "gdcm-US-ALOKA-16.dcm"),
    ],
)
def test_colours_are_those_of_pydicom(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    dataset = pydicom.dcmread(path)
    expected = pixel_array(path, index=0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        expected = apply_color_lut(expected, dataset)
    expected = (expected >> (8 * expected.dtype.itemsize - 8)).astype("u1")
    pixels = drawn(path)
    small = np.asarray(Image.fromarray(expected).resize(pixels.shape[1::-1], Image.Resampling.BILINEAR))
    assert np.abs(pixels.astype(int) - small.astype(int)).mean() < 8


def test_only_the_frame_that_is_shown_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    plugin = DecodeRunner._decode_frame

    def counting(self: DecodeRunner, source: bytes) -> bytes | bytearray:
        decoded.append(1)
        return plugin(self, source)

    monkeypatch.setattr(DecodeRunner, "_decode_frame", counting)
    drawn(Path(str(get_testdata_file("examples_ybr_color.dcm"))), 20)
    assert len(decoded) == 1


def series_of(frames: Sequence[int]) -> Series:
    instance = read_instance(Path(str(get_testdata_file("CT_small.dcm"))))
    (series,) = arrange([instance], one_patient=True).series
    return Series(*("", "", "", ""), instances=series.instances * len(frames), frames=tuple(frames))


@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [
        ([1] * 9, 3, [(1, 0), (4, 0), (7, 0)]),
        ([1] * 9, 1, [(4, 0)]),
        ([1], 3, [(0, 0)]),
        ([30], 3, [(0, 5), (0, 15), (0, 25)]),
        ([0, 1, 0, 3], 2, [(3, 0), (3, 2)]),
        ([0, 0], 3, []),
    ],
)
def test_frames_are_spread(frames: Sequence[int], count: int, expected: list[tuple[int, int]]) -> None:
    chosen = choose_frames(series_of(frames), count)
    assert [(frame.position, frame.index) for frame in chosen] == expected
