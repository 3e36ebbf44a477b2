"""Incidents of our own: a small system with real history runs, misbehaves after a change, and is recorded as an incident folder.

    python -m agent.evals.generate exception --seed 7 --out DIR
    python -m agent.evals.generate all --seed 7 --out DIR --jobs 2

shop/ is the system, features/ and history.py give its services a past, system.py runs it, record.py writes what was seen, and
scenarios/ says what goes wrong. What is real and what is not: repositories, requests, processes, log lines, counters, spans and
durations are real. Times are not: a run of under a minute is shown as an hour (clock.py), so requests per shown minute are fewer
than what was really served per second, and durations are not stretched. The history is made from a pool of edits by seed.
"""
