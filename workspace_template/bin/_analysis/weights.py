"""The weights of what speaks for and against a suspect, in log-odds.

They came from judgement and were then drawn towards a conditional logit over incidents of four systems (the small system of
evals/generate with several seeds, public cases, upgrades of libraries), shrunk to the judgement and made a tenth less sure; no
single incident decides one. A feature is a number between 0 and 1.
"""

COMMIT = {
    "soon": 1.3,  # share of what is wrong that begins right after it went live
    "early": -3.85,  # share that had begun before
    "late": -4.5,  # nearly all of it had begun before
    "undeployed": -2.25,  # no known deployment brought it, though deployments are known
    "undated": -0.27,  # nothing is known of deployments
    "superseded": -2.5,  # its service was deployed anew before it began, 1 where twice
    "older": -1.4,  # it lies before what the deployment probably brought
    "affected": 0.42,  # its service is affected
    "called": 0.7,  # its service is called by what fails
    "aside": -1.35,  # its service shows no symptom
    "foreign": -1.08,  # its files are another service's
    "away": -2.26,  # an explanation without a commit accounts for the symptom
    "frame": 1.15,  # it changes a function of the stack trace
    "file": 1.15,  # it changes a file of the stack trace
    "line": 2.6,  # it brings the line that raised
    "reach": 1.8,  # it changes what the failing code calls or uses
    "writes": 1.35,  # it brings the text of the new error
    "named": 5.2,  # it takes a name away that the error misses
    "value": 2.4,  # it brings a literal that the new lines show
    "unreached": -1.1,  # the failing code does not get to it
    "elsewhere": -1.0,  # the stack traces run through other files of its repository
    "words": 4.6,  # BM25 of the symptom's words in its diff
    "means": 7.2,  # what its diff does fits the kind of trouble
    "strength": 0.7,  # how much its diff can do at all
    "inert": -2.2,  # nothing in it acts
    "root": -3.3,  # it is the first of its repository
    "expects": 0.5,  # its tests expect something else than before
    "size": -0.9,  # how many lines act
    "release": -1.8,  # it only says that a version begins or ends
}
FLIP = {"bias": 0.2, "score": 2.21}
EXPLANATION = {"bias": 0.2, "score": 2.21}
UNKNOWN = 6.17
