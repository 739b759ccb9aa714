"""The DICOM network: query, retrieve, the Storage SCP and its pool, send."""
