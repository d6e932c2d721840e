"""Which files beside the weights travel with a model: an allow-list, never everything there is."""

import fnmatch
import re
from pathlib import Path

from hfgrow.errors import ModelError, printable

# A model with none of these has no tokenizer.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
SIDE_FILES = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    }
)
# What a listing of a repository may name; other names would be pushed and never found again.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,199}", re.ASCII)
# What learned growth made the tensors with; its name holds its hash.
LEARNED_MAPS = re.compile(r"learned_maps-[0-9a-f]{32}\.safetensors")
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY.md")


def side_files_of(folder: Path) -> list[str]:
    """Return the sorted names of the side files that lie in a model folder.

    Raises:
        ModelError: One is a link to nothing, or no plain file; or two of them are one on a file
            system without case.
    """
    names = sorted(
        path.name for path in folder.iterdir() if is_side_file(path.name) and not path.is_dir()
    )
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(
                f"{printable(folder / name, 200)} is no file that can be read",
                hint="remove it, or put the file there that it links to",
            )
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise ModelError(
                f"{other} and {name} differ by case alone, which not every disk tells apart",
                hint="rename one of them",
            )
    return names


def is_side_file(name: str) -> bool:
    """Say whether a file of a base model belongs to the grown model too.

    Tokenizer, generation settings, licence texts and learned maps do; code, pickles and the base's
    own card do not.
    """
    return name in SIDE_FILES or LEARNED_MAPS.fullmatch(name) is not None or _is_licence_file(name)


def _is_licence_file(name: str) -> bool:
    return (
        _PLAIN_NAME.fullmatch(name) is not None
        and not name.endswith((".py", ".pkl", ".bin"))
        and any(fnmatch.fnmatchcase(name, pattern) for pattern in LICENCE_FILES)
    )
