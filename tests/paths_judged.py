"""Which paths are refused whoever asks: a model of a few lines, which asks nothing of the library."""

import unicodedata


def is_ambiguous(path: str) -> bool:
    """Tell whether a path is refused whoever asks and whatever takes it."""
    if path != "" and path[0] != "/":
        return True
    return any(char in "\\\ufffd" or unicodedata.category(char) in {"Cc", "Cs"} for char in path)


def has_dots(path: str) -> bool:
    """Tell whether a path has segments that another reader may shorten away."""
    return "//" in path or any(segment in {".", ".."} for segment in path.split("/")[1:])
