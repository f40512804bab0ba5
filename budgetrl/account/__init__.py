"""One run, understood once: what displays, reports, JSON and resumptions say of it."""
