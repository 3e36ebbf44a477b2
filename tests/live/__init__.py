"""Tests against the real programs: Debian's Prometheus and Alertmanager, and services that run."""
