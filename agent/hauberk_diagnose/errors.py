"""What ends the command before its work is done."""


class Trouble(Exception):  # noqa: N818 - says what happened
    """Something on this side is wrong. The text is one sentence: what, where, and what to do about it."""
