"""Pages for people: HTML drawn on the server, parts of it renewed by htmx."""
