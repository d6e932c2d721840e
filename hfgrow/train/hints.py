"""Hints in the words of `hfgrow train`: where other commands have an option, a recipe has a key."""

_WORDS = (
    ("--out DIR", "--set output=DIR"),
    (", --create-pr, or --exist-ok to add to it", ""),
    ("--repo ", "--set push.repo="),
    ("--public", "--set push.private=false"),
    ("--private", "--set push.private=true"),
)


def as_keys(hint: str) -> str:
    """Return a hint with the keys of a recipe in place of options that `hfgrow train` lacks."""
    for option, key in _WORDS:
        hint = hint.replace(option, key)
    return hint
