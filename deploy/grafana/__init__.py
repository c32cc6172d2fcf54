"""Grafana's dashboards for gateways and load tests, written in Python and kept as JSON (`make dashboards`)."""
