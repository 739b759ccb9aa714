"""The HIS: its patient-data API."""
