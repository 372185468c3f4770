"""Learning from a teacher, on the very graph that is shipped; only `settings` and `pool` do without torch."""
