"""From findings to alerts, and from alerts to people."""
