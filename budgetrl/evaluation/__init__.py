"""Suites, completions, verdicts, estimates: how good a policy is, and how sure we are.

`passk` is the arithmetic, `rows` the files, `run` makes an evaluation in rounds, `compare` sets
two of them against each other under one protocol.
"""
