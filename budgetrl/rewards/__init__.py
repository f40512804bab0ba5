"""Rewards: hang-proof grading and the weighted sum that training sees."""
