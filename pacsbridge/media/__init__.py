"""From received instances to a disc."""
