"""Wording of messages and log lines."""


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 step", "2 steps"; the plural of `noun` must end in -s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
