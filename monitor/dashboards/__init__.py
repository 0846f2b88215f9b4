"""Dashboards: files of panels, each a query and a Vega-Lite encoding, drawn in pages and as pictures."""
