"""The process that holds the deadline: starts, watches, ends and resumes the worker."""
