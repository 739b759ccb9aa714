"""pacsbridge: the service between a hospital's PACS, its HIS, its CD publisher and the cloud."""

__version__ = "0.1.0"
