"""Numbers formatted for people."""


def counted(number: int, thing: str) -> str:
    """A number of things, e.g. ``1 upload`` or ``1,200 uploads``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """A number of bytes in megabytes, e.g. ``1,200 MB``."""
    return f"{size / 1_000_000:,.0f} MB"
