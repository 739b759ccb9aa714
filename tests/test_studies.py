from pathlib import Path

from pydicom import dcmread

from tests.peers import require, run
from tests.studies import Patient, make_ct_series, make_study, real_files


def test_a_study_has_what_was_asked(tmp_path: Path) -> None:
    study = make_study(tmp_path, "A1", patient=Patient("P1", "A^B"), series=2, instances=3, size=32)
    datasets = [dcmread(path) for path in study.paths]
    assert len(study.SOPInstanceUIDs) == 6
    assert {ds.StudyInstanceUID for ds in datasets} == {study.StudyInstanceUID}
    assert len({ds.SeriesInstanceUID for ds in datasets}) == 2
    assert {ds.AccessionNumber for ds in datasets} == {"A1"}
    assert {ds.PatientID for ds in datasets} == {"P1"}
    assert datasets[0].pixel_array.shape == (32, 32)


def test_a_second_study_may_have_the_same_accession_number(tmp_path: Path) -> None:
    first, second = make_study(tmp_path, "A1"), make_study(tmp_path, "A1", study="b")
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert not set(first.paths) & set(second.paths)


def test_a_slice_is_valid_and_as_large_as_a_scanners(tmp_path: Path) -> None:
    (path,) = make_ct_series(tmp_path, 1, size=512)
    assert 525_000 < path.stat().st_size < 530_000
    verdict = run(require("dciodvfy"), path).stdout
    assert "CTImage" in verdict
    assert not [line for line in verdict.splitlines() if line.startswith("Error")]


def test_real_files_are_many_and_unique() -> None:
    assert len(real_files()) > 140
    assert len(real_files(unique=False)) > len(real_files())
