"""The console: API and pages."""
