"""One scripted trajectory, many harnesses: a conformance server in one process, one harness in another, and what was counted."""
