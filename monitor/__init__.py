"""Watchkeeper: monitoring and anomaly detection for autonomous AI agents."""

__version__ = "0.1.0"
