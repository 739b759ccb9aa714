"""The directory records of a DICOMDIR: the type of a SOP class, the keys of a type (PS3.3 F.3 to F.5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword

if TYPE_CHECKING:
    from collections.abc import Mapping

KeyType = Literal["1", "1C", "2", "3"]

#: Newer than the dictionary of the pydicom that is pinned (PS3.4 B.5).
WAVEFORM_PRESENTATION_STATE: Final = "1.2.840.10008.5.1.4.1.1.9.100.1"
WAVEFORM_ACQUISITION_PRESENTATION_STATE: Final = "1.2.840.10008.5.1.4.1.1.9.100.2"


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute that a directory record has.

    Parameters
    ----------
    type
        As in PS3.5 7.4: ``1`` has a value, ``1C`` and ``3`` where there is one, ``2`` may be empty.
    """

    keyword: str
    type: KeyType
    tag: int
    vr: bytes


def tag_of(keyword: str) -> int:
    """Give the tag of a DICOM keyword, as one number.

    Raises
    ------
    KeyError
        There is no such keyword.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


def vr_of(keyword: str) -> bytes:
    """Give the value representation of a DICOM keyword, as it is encoded."""
    return dictionary_VR(tag_of(keyword)).encode("ascii")


def _keys(**types: KeyType) -> tuple[Key, ...]:
    keys = (Key(keyword, type_, tag_of(keyword), vr_of(keyword)) for keyword, type_ in types.items())
    return tuple(sorted(keys, key=lambda key: key.tag))


def _content(**more: KeyType) -> tuple[Key, ...]:
    """Keys of a type that has a content date and the Content Identification Macro (PS3.3 table 10-12)."""
    return _keys(ContentDate="1", ContentTime="1", **_IDENTIFICATION, **more)


_IDENTIFICATION: Final[Mapping[str, KeyType]] = {
    "InstanceNumber": "1",
    "ContentLabel": "1",
    "ContentDescription": "2",
    "ContentCreatorName": "2",
}
_PRESENTATION: Final[Mapping[str, KeyType]] = {
    "PresentationCreationDate": "1",
    "PresentationCreationTime": "1",
    "ReferencedSeriesSequence": "1C",
    **_IDENTIFICATION,
}

#: The keys of each record type in the order of their tags (PS3.3 F.5). SpecificCharacterSet is not among
#: them: it goes into each record whose strings need it. Type 3 are those that viewers show in their lists.
RECORD_KEYS: Final[Mapping[str, tuple[Key, ...]]] = {
    "PATIENT": _keys(
        PatientName="2", PatientID="1", IssuerOfPatientID="3", PatientBirthDate="3", PatientSex="3"
    ),
    "STUDY": _keys(
        StudyDate="1",
        StudyTime="1",
        AccessionNumber="2",
        StudyDescription="2",
        StudyInstanceUID="1",
        StudyID="1",
    ),
    "SERIES": _keys(Modality="1", SeriesDescription="3", SeriesInstanceUID="1", SeriesNumber="1"),
    "IMAGE": _keys(InstanceNumber="1"),
    "RT DOSE": _keys(InstanceNumber="1", DoseSummationType="1", DoseComment="3"),
    "RT STRUCTURE SET": _keys(
        InstanceNumber="1", StructureSetLabel="1", StructureSetDate="2", StructureSetTime="2"
    ),
    "RT PLAN": _keys(InstanceNumber="1", RTPlanLabel="1", RTPlanDate="2", RTPlanTime="2"),
    "RT TREAT RECORD": _keys(InstanceNumber="1", TreatmentDate="2", TreatmentTime="2"),
    "PRESENTATION": _keys(**_PRESENTATION, BlendingSequence="1C"),
    "WF PRESENTATION": _keys(**_PRESENTATION),
    "WAVEFORM": _keys(InstanceNumber="1", ContentDate="1", ContentTime="1"),
    "SR DOCUMENT": _keys(
        InstanceNumber="1",
        CompletionFlag="1",
        VerificationFlag="1",
        ContentDate="1",
        ContentTime="1",
        VerificationDateTime="1C",
        ConceptNameCodeSequence="1",
        ContentSequence="1C",
    ),
    "KEY OBJECT DOC": _keys(
        InstanceNumber="1",
        ContentDate="1",
        ContentTime="1",
        ConceptNameCodeSequence="1",
        ContentSequence="1C",
    ),
    "SPECTROSCOPY": _keys(
        ImageType="1",
        ContentDate="1",
        ContentTime="1",
        InstanceNumber="1",
        ReferencedImageEvidenceSequence="1C",
        NumberOfFrames="1",
        Rows="1",
        Columns="1",
        DataPointRows="1",
        DataPointColumns="1",
    ),
    "RAW DATA": _keys(ContentDate="1", ContentTime="1", InstanceNumber="2"),
    "REGISTRATION": _content(),
    "FIDUCIAL": _content(),
    "ENCAP DOC": _keys(
        ContentDate="2",
        ContentTime="2",
        InstanceNumber="1",
        ConceptNameCodeSequence="2",
        DocumentTitle="2",
        HL7InstanceIdentifier="1C",
        MIMETypeOfEncapsulatedDocument="1",
    ),
    "VALUE MAP": _content(),
    "STEREOMETRIC": (),
    "PLAN": (),
    "MEASUREMENT": _content(),
    "SURFACE": _content(),
    "SURFACE SCAN": _keys(ContentDate="1", ContentTime="1"),
    "TRACT": _content(),
    "ASSESSMENT": _keys(InstanceNumber="1", InstanceCreationDate="1", InstanceCreationTime="2"),
    "RADIOTHERAPY": _keys(
        InstanceNumber="1",
        UserContentLabel="1C",
        UserContentLongLabel="1C",
        ContentDescription="2",
        ContentCreatorName="2",
    ),
    "ANNOTATION": _content(),
    "PRIVATE": _keys(InstanceNumber="3"),
}

_SOP_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "RT DOSE": (uid.RTDoseStorage,),
    "RT STRUCTURE SET": (uid.RTStructureSetStorage,),
    "RT PLAN": (uid.RTPlanStorage, uid.RTIonPlanStorage),
    "RT TREAT RECORD": (
        uid.RTBeamsTreatmentRecordStorage,
        uid.RTBrachyTreatmentRecordStorage,
        uid.RTTreatmentSummaryRecordStorage,
        uid.RTIonBeamsTreatmentRecordStorage,
    ),
    "PRESENTATION": (
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.ColorSoftcopyPresentationStateStorage,
        uid.PseudoColorSoftcopyPresentationStateStorage,
        uid.BlendingSoftcopyPresentationStateStorage,
        uid.XAXRFGrayscaleSoftcopyPresentationStateStorage,
        uid.GrayscalePlanarMPRVolumetricPresentationStateStorage,
        uid.CompositingPlanarMPRVolumetricPresentationStateStorage,
        uid.AdvancedBlendingPresentationStateStorage,
        uid.VolumeRenderingVolumetricPresentationStateStorage,
        uid.SegmentedVolumeRenderingVolumetricPresentationStateStorage,
        uid.MultipleVolumeRenderingVolumetricPresentationStateStorage,
        uid.VariableModalityLUTSoftcopyPresentationStateStorage,
        uid.BasicStructuredDisplayStorage,
    ),
    "WF PRESENTATION": (WAVEFORM_PRESENTATION_STATE, WAVEFORM_ACQUISITION_PRESENTATION_STATE),
    "WAVEFORM": (
        uid.TwelveLeadECGWaveformStorage,
        uid.GeneralECGWaveformStorage,
        uid.AmbulatoryECGWaveformStorage,
        uid.General32bitECGWaveformStorage,
        uid.HemodynamicWaveformStorage,
        uid.CardiacElectrophysiologyWaveformStorage,
        uid.BasicVoiceAudioWaveformStorage,
        uid.GeneralAudioWaveformStorage,
        uid.ArterialPulseWaveformStorage,
        uid.RespiratoryWaveformStorage,
        uid.MultichannelRespiratoryWaveformStorage,
        uid.RoutineScalpElectroencephalogramWaveformStorage,
        uid.ElectromyogramWaveformStorage,
        uid.ElectrooculogramWaveformStorage,
        uid.SleepElectroencephalogramWaveformStorage,
        uid.BodyPositionWaveformStorage,
    ),
    "SR DOCUMENT": (
        uid.BasicTextSRStorage,
        uid.EnhancedSRStorage,
        uid.ComprehensiveSRStorage,
        uid.Comprehensive3DSRStorage,
        uid.ExtensibleSRStorage,
        uid.ProcedureLogStorage,
        uid.MammographyCADSRStorage,
        uid.ChestCADSRStorage,
        uid.ColonCADSRStorage,
        uid.XRayRadiationDoseSRStorage,
        uid.EnhancedXRayRadiationDoseSRStorage,
        uid.RadiopharmaceuticalRadiationDoseSRStorage,
        uid.PatientRadiationDoseSRStorage,
        uid.ImplantationPlanSRStorage,
        uid.AcquisitionContextSRStorage,
        uid.SimplifiedAdultEchoSRStorage,
        uid.PlannedImagingAgentAdministrationSRStorage,
        uid.PerformedImagingAgentAdministrationSRStorage,
        uid.WaveformAnnotationSRStorage,
        uid.SpectaclePrescriptionReportStorage,
        uid.MacularGridThicknessAndVolumeReportStorage,
    ),
    "KEY OBJECT DOC": (uid.KeyObjectSelectionDocumentStorage,),
    "SPECTROSCOPY": (uid.MRSpectroscopyStorage,),
    "RAW DATA": (uid.RawDataStorage,),
    "REGISTRATION": (uid.SpatialRegistrationStorage, uid.DeformableSpatialRegistrationStorage),
    "FIDUCIAL": (uid.SpatialFiducialsStorage,),
    "ENCAP DOC": (
        uid.EncapsulatedPDFStorage,
        uid.EncapsulatedCDAStorage,
        uid.EncapsulatedSTLStorage,
        uid.EncapsulatedOBJStorage,
        uid.EncapsulatedMTLStorage,
    ),
    "VALUE MAP": (uid.RealWorldValueMappingStorage,),
    "STEREOMETRIC": (uid.StereometricRelationshipStorage,),
    "PLAN": (
        uid.RTBeamsDeliveryInstructionStorage,
        uid.RTBrachyApplicationSetupDeliveryInstructionStorage,
    ),
    "MEASUREMENT": (
        uid.LensometryMeasurementsStorage,
        uid.AutorefractionMeasurementsStorage,
        uid.KeratometryMeasurementsStorage,
        uid.SubjectiveRefractionMeasurementsStorage,
        uid.VisualAcuityMeasurementsStorage,
        uid.OphthalmicAxialMeasurementsStorage,
        uid.IntraocularLensCalculationsStorage,
        uid.OphthalmicVisualFieldStaticPerimetryMeasurementsStorage,
    ),
    "SURFACE": (uid.SurfaceSegmentationStorage,),
    "SURFACE SCAN": (uid.SurfaceScanMeshStorage, uid.SurfaceScanPointCloudStorage),
    "TRACT": (uid.TractographyResultsStorage,),
    "ASSESSMENT": (uid.ContentAssessmentResultsStorage,),
    "RADIOTHERAPY": (
        uid.RTPhysicianIntentStorage,
        uid.RTSegmentAnnotationStorage,
        uid.RTRadiationSetStorage,
        uid.CArmPhotonElectronRadiationStorage,
        uid.TomotherapeuticRadiationStorage,
        uid.RoboticArmRadiationStorage,
        uid.RTRadiationRecordSetStorage,
        uid.RTRadiationSalvageRecordStorage,
        uid.TomotherapeuticRadiationRecordStorage,
        uid.CArmPhotonElectronRadiationRecordStorage,
        uid.RoboticRadiationRecordStorage,
        uid.RTRadiationSetDeliveryInstructionStorage,
        uid.RTTreatmentPreparationStorage,
        uid.RTPatientPositionAcquisitionInstructionStorage,
    ),
    "ANNOTATION": (uid.MicroscopyBulkSimpleAnnotationsStorage,),
}

#: SOP Class UID → record type, for all that are no images.
RECORD_TYPES: Final[Mapping[str, str]] = {
    str(sop_class): record_type for record_type, classes in _SOP_CLASSES.items() for sop_class in classes
}


@lru_cache(maxsize=512)
def record_type(SOPClassUID: str, *, has_rows: bool) -> str:
    """Give the type of the record below a SERIES for an instance (PS3.3 F.4, table F.4-1).

    An unknown SOP class, be it private or newer than this table, is an IMAGE if it has Rows, and otherwise
    PRIVATE. Templates that belong to no patient (hanging protocols, palettes, implants, inventories) have
    records of their own below the root; they belong to no study, so they don't get here.

    Parameters
    ----------
    has_rows
        The instance has Rows (0028,0010), which all images have.
    """
    known = RECORD_TYPES.get(SOPClassUID)
    if known is not None:
        return known
    return "IMAGE" if has_rows or "ImageStorage" in uid.UID(SOPClassUID).keyword else "PRIVATE"
