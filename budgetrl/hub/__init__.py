"""The model hub: what a repository holds, at which commit, and its files on this disk."""
