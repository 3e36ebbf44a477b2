"""The one door out of a sandbox: a proxy on the host that keeps its rules (agent/core/egress.py) and audits every request."""
