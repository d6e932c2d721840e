"""The base's tokenizer as the data layer needs it: text to numbers, and what parts documents."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfgrow.checkpoint.tokenizer import check_tokenizer_bounds
from hfgrow.errors import ModelError, foreign, printable
from hfgrow.hub.cache import refuse_lack

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_FILE = "tokenizer.json"
# Any of which a tokenizer can be made from.
_FILES = (_FILE, "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
# What tokenizers that cut text in other ways cut in other places.
_PROBE = (
    "The first 1,234 words, don't you see?\n\n  Zwölf Boxkämpfer jagen.\tif (x == 10): 你好 🙂 end"
)
# Settings of a caller, not of the tokenizer.
_NOT_ITS_OWN = ("truncation", "padding")


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer of the `tokenizers` library.

    Attributes:
        encoder: The tokenizer.
        sha256: The hash of its tokenizer.json, whatever its order and spacing.
        prefix: Tokens before every document: the beginning-of-text token, if the tokenizer itself
            puts it before a text, or has no end-of-text token.
        suffix: Tokens after every document: the end-of-text token, if it has one.
        bos: The beginning-of-text token, if it has one.
        keeps_space: Whether the second half of a text cut at a space keeps the space; without, the
            tokenizer puts one before every text.
    """

    encoder: "Tokenizer"
    sha256: str
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    bos: int | None
    keeps_space: bool

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of every text, without any around it.

        Raises:
            ModelError: The tokenizer fails.
        """
        with foreign(lambda said: ModelError(f"the tokenizer cannot encode the text: {said}")):
            found = self.encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    @property
    def identity(self) -> dict[str, object]:
        """What two tokenizers must have alike to make the same tokens."""
        return {"sha256": self.sha256, "prefix": list(self.prefix), "suffix": list(self.suffix)}


def open_tokenizer(folder: Path) -> TextTokenizer:
    """Open the tokenizer of a model folder; no code of the folder runs.

    Raises:
        ModelError: There is none, it cannot be opened, transformers opens another than its
            tokenizer.json, or it names no token that parts documents.
        HubUnreachableError: Offline, the cache has no more of the model.
    """
    from transformers import AutoTokenizer

    shown = printable(folder, 200)
    hint = "training needs tokenizer.json beside the weights, or tokenizer: FOLDER"
    if not any((folder / name).is_file() for name in _FILES):
        # transformers would ask the Hub for it, and wait.
        refuse_lack(folder, "the tokenizer")
        raise ModelError(f"{shown} has no tokenizer", hint=hint)
    check_tokenizer_bounds(folder)
    auto_tokenizer: Any = AutoTokenizer
    with foreign(
        lambda said: ModelError(f"{shown} has no tokenizer that can be opened: {said}", hint=hint)
    ):
        opened = auto_tokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        encoder = opened.backend_tokenizer
        encoder.no_truncation()
        encoder.no_padding()
        added = encoder.encode("", add_special_tokens=True).ids
        keeps_space = _keeps_space(encoder)
        agrees = _is_as_written(encoder, folder)
    if not agrees:
        raise ModelError(
            f"{shown}: transformers opens another tokenizer than tokenizer.json holds, and makes "
            "other tokens of a text",
            hint="model_type in config.json and tokenizer_class decide which; "
            '"tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json takes the file '
            "as it is, but not for every model_type (qwen2)",
        )
    bos, eos = opened.bos_token_id, opened.eos_token_id
    if bos is None and eos is None:
        raise ModelError(
            f"the tokenizer of {shown} names neither eos_token nor bos_token, so nothing would "
            "part documents",
            hint="set eos_token in tokenizer_config.json",
        )
    begins = added[:1] == [bos] or eos is None
    return TextTokenizer(
        encoder=encoder,
        sha256=_sha256(folder / _FILE, encoder),
        prefix=(int(bos),) if bos is not None and begins else (),
        suffix=() if eos is None else (int(eos),),
        bos=None if bos is None else int(bos),
        keeps_space=keeps_space,
    )


def _is_as_written(encoder: "Tokenizer", folder: Path) -> bool:
    """Say whether what transformers has opened makes the tokens of the file itself."""
    from tokenizers import Tokenizer

    if not (folder / _FILE).is_file():
        return True
    written = Tokenizer.from_file(str(folder / _FILE))
    written.no_truncation()
    one, two = (each.encode(_PROBE, add_special_tokens=False).ids for each in (encoder, written))
    return bool(one == two)


def _sha256(path: Path, encoder: "Tokenizer") -> str:
    text = path.read_text(encoding="utf-8") if path.is_file() else encoder.to_str()
    content = json.loads(text)
    content = {key: value for key, value in content.items() if key not in _NOT_ITS_OWN}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _keeps_space(encoder: "Tokenizer") -> bool:
    def ids(text: str) -> list[int]:
        return list(encoder.encode(text, add_special_tokens=False).ids)

    whole = ids("the end")
    return whole == ids("the") + ids(" end") or whole != ids("the") + ids("end")
