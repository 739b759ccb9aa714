import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames

from pacsbridge.demo import contents
from pacsbridge.demo.index import Index, StoredInstance
from tests.samples import real_file
from tests.studies import make_study

URL = "http://pacs/studies/1/series/2/instances/3"


def stored(name: str) -> StoredInstance:
    return Index().add(real_file(name))


def test_metadata_is_what_the_file_says_without_the_pixels(tmp_path: Path) -> None:
    path = make_study(tmp_path, instances=1).paths[0]
    row = contents.metadata(Index().add(path), URL)
    whole = dcmread(path)
    read = Dataset.from_json(json.dumps({tag: row[tag] for tag in row if tag != contents.PIXEL_DATA}))
    del whole.PixelData
    assert read == whole
    assert row[contents.PIXEL_DATA]["BulkDataURI"] == f"{URL}/bulkdata/7FE00010"
    assert list(row) == sorted(row)


def test_long_values_have_addresses_and_are_found_by_them() -> None:
    instance = stored("waveform_ecg.dcm")
    row = contents.metadata(instance, URL)
    items = row["54000100"]["Value"]
    assert [item["54001010"]["BulkDataURI"] for item in items] == [
        f"{URL}/bulkdata/54000100/{number}/54001010" for number in (1, 2)
    ]
    for number, item in enumerate(instance.header.WaveformSequence, start=1):
        assert contents.bulk_data(instance, f"54000100/{number}/54001010") == item.WaveformData
    assert contents.PIXEL_DATA not in row
    assert contents.frame_count(instance) == 0


@pytest.mark.parametrize(
    "attribute",
    [
        "54000100/3/54001010",
        "54000100/0/54001010",
        "54000100",
        "00100010",
        "00100010/1/00100020",
        "x/y",
        "1/2",
    ],
)
def test_other_addresses_lead_nowhere(attribute: str) -> None:
    assert contents.bulk_data(stored("waveform_ecg.dcm"), attribute) is None


def test_frames_are_those_of_the_file() -> None:
    compressed = stored("examples_ybr_color.dcm")
    whole = list(generate_frames(dcmread(compressed.path).PixelData, number_of_frames=30))
    assert contents.frame_count(compressed) == 30
    assert list(contents.read_frames(compressed, [30, 1])) == [whole[29], whole[0]]


def test_uncompressed_frames_are_cut_out() -> None:
    instance = stored("rtdose.dcm")
    ds = dcmread(instance.path)
    (second,) = contents.read_frames(instance, [2])
    assert second == ds.pixel_array[1].tobytes()


@pytest.mark.parametrize("name", ["CT_small.dcm", "examples_ybr_color.dcm", "examples_jpeg2k.dcm"])
def test_pictures_are_drawn(name: str) -> None:
    picture = contents.rendered(stored(name), 1)
    assert picture is not None
    assert Image.open(BytesIO(picture)).format == "JPEG"


def test_what_is_no_image_has_no_picture() -> None:
    assert contents.rendered(stored("waveform_ecg.dcm"), 1) is None
