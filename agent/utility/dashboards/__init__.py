"""Grafana dashboards and Prometheus rules, made from short lists of panels and rules."""
