"""What the confined process tells of a module that cannot become a graph."""


class UnusableError(Exception):
    """The message says why, and what to do."""
