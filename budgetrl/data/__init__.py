"""Problems: read, checked, rendered as prompts, and drawn for each step."""
