"""A self-investigating SRE agent: an alert comes in, a checked root-cause report and a proposed change come out."""

__version__ = "0.1.0"
