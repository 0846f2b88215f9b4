"""A simulated fleet and the reference kill-switch endpoint, for the demo and the tests."""
