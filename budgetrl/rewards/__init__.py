"""Rewards: grading in processes that can be killed, and the weighted sum that training sees."""

DEFAULT_TIMEOUT_S = 3.0
"""Wall seconds that grading one answer may take."""
