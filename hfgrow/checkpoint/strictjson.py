"""JSON as a stranger may send it: bounded, without duplicate keys, always one clear refusal."""

import json
from collections import Counter
from math import isfinite
from typing import Any

from hfgrow.checkpoint.files import Files
from hfgrow.errors import ModelError, printable

# Far above any real config or index (a 100,000-tensor index takes 10 MB).
MAX_JSON_NBYTES = 50 * 1000 * 1000


def read_json_object(files: Files, name: str) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        ModelError: The file is too large, not UTF-8, not JSON, not an object, or repeats a key.
    """
    nbytes = files.nbytes(name)
    if nbytes > MAX_JSON_NBYTES:
        raise ModelError(
            f"{printable(name)} has {nbytes} bytes; at most {MAX_JSON_NBYTES} are read"
        )
    return parse_json_object(files.read(name, 0, nbytes), name)


def parse_json_object(raw: bytes, where: str) -> dict[str, Any]:
    """Parse JSON bytes whose top level is an object; `where` names them in messages.

    Raises:
        ModelError: As in `read_json_object`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, times in counts.items() if times > 1)
            raise ModelError(f"{printable(where)}: the key {printable(twice)!r} stands twice")
        return result

    def refuse_constant(text: str) -> Any:
        raise ModelError(f"{printable(where)}: {text} is no JSON value")

    def finite(text: str) -> float:
        number = float(text)
        return number if isfinite(number) else refuse_constant(text)

    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=refuse_constant,
            parse_float=finite,
        )
        # Half of a surrogate pair is JSON, but no text that could be written again.
        if rb"\ud" in raw.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"{printable(where)} holds half of a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{printable(where)} is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise ModelError(f"{printable(where)} is nested too deeply to be a header") from error
    except ValueError as error:
        raise ModelError(f"{printable(where)} is not JSON: {printable(error, 120)}") from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{printable(where)} must hold a JSON object, not a {type(value).__name__}"
        )
    return value


def is_int(value: object) -> bool:
    """Say whether a JSON value is an integer, which `true` and `2.0` are not."""
    return isinstance(value, int) and not isinstance(value, bool)
