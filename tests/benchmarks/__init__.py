"""The comparison with other tools, on tiny models."""
