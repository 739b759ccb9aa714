"""The embedded PACS and its sample patients: pacsbridge's main job with nothing else installed."""
