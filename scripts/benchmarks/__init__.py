"""The targets P1 to P9, measured beside the tools that a hospital would use instead: see docs/performance.md."""
