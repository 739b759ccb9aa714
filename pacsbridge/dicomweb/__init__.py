"""The DICOMweb proxy: what may be asked, who may ask it, and how the answer comes from the upstream server."""
