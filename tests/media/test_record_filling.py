"""What records say where images are silent: dates and times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.media.directory import directory_of
from tests.samples import dataset

if TYPE_CHECKING:
    from pathlib import Path


def study_moment(folder: Path, *instances: dict[str, Any]) -> tuple[str, str]:
    """Give StudyDate and StudyTime of the record of a study whose instances have these attributes."""
    made = [
        dataset(**{"StudyDate": None, "StudyTime": None, "SOPInstanceUID": f"1.{number}", **attributes})
        for number, attributes in enumerate(instances)
    ]
    [patient] = directory_of(folder, made)
    [study] = patient.below
    return study.keys.StudyDate, study.keys.StudyTime


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, ("19000101", "000000")),
        ({"StudyDate": "20240101"}, ("20240101", "000000")),
        ({"StudyTime": "1112"}, ("19000101", "1112")),
        ({"SeriesDate": "20240102", "SeriesTime": "13"}, ("20240102", "13")),
        ({"AcquisitionDate": "20240103", "SeriesDate": "20240102"}, ("20240103", "000000")),
        ({"ContentDate": "20240104", "ContentTime": "101112.5"}, ("20240104", "101112.5")),
        ({"InstanceCreationDate": "20240105"}, ("20240105", "000000")),
        ({"AcquisitionDateTime": "20240106121314.5+0100"}, ("20240106", "121314")),
        ({"AcquisitionDateTime": "20240106"}, ("20240106", "000000")),
        ({"AcquisitionDateTime": "2024"}, ("19000101", "000000")),
        ({"StudyDate": "20240101", "ContentDate": "20240101", "ContentTime": "10"}, ("20240101", "10")),
        ({"StudyDate": "20240101", "ContentDate": "20240102", "ContentTime": "10"}, ("20240101", "000000")),
    ],
)
def test_a_study_without_a_date_gets_that_of_its_instance(
    tmp_path: Path, attributes: dict[str, str], expected: tuple[str, str]
) -> None:
    assert study_moment(tmp_path, attributes) == expected


def test_a_study_without_a_date_gets_the_earliest_of_its_instances(tmp_path: Path) -> None:
    first = {"ContentDate": "20240102", "ContentTime": "09"}
    second = {"ContentDate": "20240101", "ContentTime": "23"}
    third = {"ContentDate": "20240101", "ContentTime": "22"}
    assert study_moment(tmp_path, first, second, {}, third) == ("20240101", "22")
