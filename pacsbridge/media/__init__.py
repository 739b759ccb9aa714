"""From received instances to a disc: transcoding, DICOMDIR, pages, viewer, ISO 9660 image."""
