"""Reading mathematics: the answer in a completion, and whether it equals the gold one."""
