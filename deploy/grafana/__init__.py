"""The dashboards, made in Python and kept as JSON: `make dashboards` writes them, `make check` compares."""
