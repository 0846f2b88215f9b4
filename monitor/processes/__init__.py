"""The three processes: edge, detection and console. Each is put together in its own file."""
