"""From received instances to a disc: DICOMDIR, layout, previews, image."""
