"""How counts are told to people."""


def counted(number: int, thing: str) -> str:
    """A number of things in words, e.g. ``1 upload`` or ``1,200 uploads``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
