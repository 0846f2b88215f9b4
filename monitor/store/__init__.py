"""Where things are kept: ClickHouse for events, a SQL state database for everything people decide."""
