"""The weights of what speaks for and against a suspect, in log-odds."""

COMMIT = {
    "soon": 1.5,
    "early": -4.0,
    "undeployed": -2.5,
    "undated": -0.3,
    "affected": 0.5,
    "called": 0.6,
    "aside": -1.5,
    "foreign": -1.2,
    "away": -2.5,
    "frame": 1.0,
    "file": 0.9,
    "line": 2.0,
    "reach": 1.2,
    "writes": 1.5,
    "named": 3.0,
    "words": 2.6,
    "means": 5.5,
    "strength": 0.5,
    "inert": -2.0,
    "size": 0.3,
    "release": -1.5,
}
FLIP = {"bias": 0.2, "score": 1.8}
EXPLANATION = {"bias": 0.2, "score": 1.8}
UNKNOWN = 5.5
