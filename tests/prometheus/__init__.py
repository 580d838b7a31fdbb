"""Prometheus scrapes a running installation, and answers what the dashboards ask."""
