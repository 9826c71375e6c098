"""Wording of messages and log lines."""


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 step", "2 steps"; the plural of `noun` must end in -s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shortened(text: str, width: int) -> str:
    """A text of at most `width` characters; the end of a longer one is replaced by three dots."""
    return text if len(text) <= width else f"{text[: width - 3]}..."
