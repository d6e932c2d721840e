"""What a grown model's card takes from its base's: licence and languages, as checked values.

The text of a base's card is never copied and never rendered. The Hub takes a card only with the
licences and languages that it knows: what stands there otherwise is written as it does.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import CARD, LocalFolder
from hfgrow.errors import ModelError, printable

# Where the metadata of a card must end; the text after it is not even read.
_MAX_HEAD_NBYTES = 1 << 16
_PLAIN = re.compile(r"[A-Za-z][\w.+-]{0,63}", re.ASCII)
_URL = re.compile(r"(https?://)?[\w./#~%+-]{1,300}", re.ASCII)
_WORDS = re.compile(r"[A-Za-z][\w .,+()/-]{0,79}", re.ASCII)
_TEXTS = (("license_name", _PLAIN), ("license_link", _URL))
_NOTHING = frozenset({"no", "yes", "true", "false", "null", "none"})
_MAX_LANGUAGES = 300
_MAX_LICENCES = 10
# Source: https://huggingface.co/docs/hub/repositories-licenses
_IDENTIFIERS = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m
    bigscience-bloom-rail-1.0 afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause
    bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
    cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc intel-research lppl-1.3c
    ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa
    unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2
    llama3 llama3.1 llama3.2 llama3.3 llama4 gemma unknown other
"""
LICENCES = frozenset(_IDENTIFIERS.split())
# By what is left of a licence's name without its punctuation, "licence" and "version".
_LICENCE_OF = {re.sub(r"[^a-z0-9+]", "", name): name for name in sorted(LICENCES)} | {
    "apache": "apache-2.0",
    "apache2": "apache-2.0",
    "asl20": "apache-2.0",
    "agpl3": "agpl-3.0",
    "ccby4": "cc-by-4.0",
    "ccbysa4": "cc-by-sa-4.0",
    "ccbync4": "cc-by-nc-4.0",
    "ccbyncsa4": "cc-by-nc-sa-4.0",
    "cc0": "cc0-1.0",
    "gpl2": "gpl-2.0",
    "gpl3": "gpl-3.0",
    "lgpl3": "lgpl-3.0",
    "mpl2": "mpl-2.0",
}
# Source: ISO 639-1
_TWO_LETTERS = """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da
    de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz
    ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln
    lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi
    pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti
    tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
_BETWEEN = re.compile(r"\s*[,/]\s*|\s+(?:and|or)\s+", re.IGNORECASE)
_CODES = frozenset(_TWO_LETTERS.split())
_SPECIAL = frozenset({"code", "multilingual"})
_LANGUAGE_OF = {
    **{"arabic": "ar", "bengali": "bn", "bulgarian": "bg", "catalan": "ca", "chinese": "zh"},
    **{"croatian": "hr", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en"},
    **{"estonian": "et", "finnish": "fi", "french": "fr", "german": "de", "greek": "el"},
    **{"hebrew": "he", "hindi": "hi", "hungarian": "hu", "indonesian": "id", "italian": "it"},
    **{"japanese": "ja", "korean": "ko", "latin": "la", "latvian": "lv", "lithuanian": "lt"},
    **{"malay": "ms", "mandarin": "zh", "norwegian": "no", "persian": "fa", "polish": "pl"},
    **{"portuguese": "pt", "romanian": "ro", "russian": "ru", "serbian": "sr", "slovak": "sk"},
    **{"slovenian": "sl", "spanish": "es", "swahili": "sw", "swedish": "sv", "tamil": "ta"},
    **{"telugu": "te", "thai": "th", "turkish": "tr", "ukrainian": "uk", "urdu": "ur"},
    **{"vietnamese": "vi", "welsh": "cy"},
    # Countries that are often written for their language, and are no code of one.
    **{"cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "jp": "ja", "ua": "uk"},
}


def inherited(folder: Path, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Return the metadata that the card in a model folder hands on, as the Hub takes it.

    A card that cannot be read gives nothing: it is the base's fault, and no reason not to grow.

    Args:
        folder: Of the base.
        say: Told what is left out or written otherwise.
    """
    found = _head_of(folder)
    fit, notes = fit_for_the_hub(checked_metadata(found))
    for note in notes:
        say(f"Note: {CARD} of the base: {note}")
    return fit


def _head_of(folder: Path) -> dict[Any, Any]:
    import yaml

    files = LocalFolder(folder)
    try:
        text = files.read(CARD, 0, _MAX_HEAD_NBYTES).decode("utf-8", errors="replace")
    except ModelError:
        return {}
    match = re.match(r"---\r?\n(.*?)\r?\n---\s*(\r?\n|$)", text, re.DOTALL)
    # Anchors can blow up a small text; no card's metadata needs them.
    if match is None or re.search(r"(^|[\s\[{,:-])[&*]\w", match[1]):
        return {}
    try:
        # Every scalar stays the text it is: no is Norwegian, and no tag makes anything else.
        metadata = yaml.load(match[1], Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def checked_metadata(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the allow-listed keys whose values have the type and shape they should."""
    found: dict[str, Any] = {}
    licences = _texts(metadata.get("license"), _WORDS)[:_MAX_LICENCES]
    licences = [text for text in licences if text.lower() not in _NOTHING]
    if licences:
        found["license"] = licences[0] if licences[1:] == [] else licences
    for key, shape in _TEXTS:
        value = metadata.get(key)
        if isinstance(value, str) and shape.fullmatch(value) and value.lower() not in _NOTHING:
            found[key] = value
    languages = _texts(metadata.get("language"), _WORDS)
    languages = [text for text in languages if text == "no" or text.lower() not in _NOTHING]
    if languages:
        found["language"] = languages[:_MAX_LANGUAGES]
    return found


def _texts(value: object, shape: re.Pattern[str]) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and shape.fullmatch(text)]


def fit_for_the_hub(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return metadata as the Hub takes it, and what was left out or written otherwise.

    The Hub answers 400 to a whole push for a licence or language that it does not know.

    Args:
        metadata: From `checked_metadata`, of a card or of an earlier hfgrow.json.
    """
    notes: list[str] = []
    licence = _fit_licence(metadata, notes)
    others = {key: value for key, value in metadata.items() if key not in (*licence, "license")}
    languages = others.pop("language", [])
    fit = licence | others
    if codes := _fit_languages(languages, notes):
        fit["language"] = codes
    return fit, notes


def _fit_licence(metadata: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    given = metadata.get("license")
    if given is None:
        return {}
    names = [
        part for name in ([given] if isinstance(given, str) else given) for part in _parts(name)
    ]
    known = [_identifier_of(name) for name in names]
    if all(known):
        listed = list(dict.fromkeys(known))
        return {"license": listed[0] if listed[1:] == [] else listed}
    shown = " and ".join(printable(name) for name in names)
    name = re.sub(r"[^a-z0-9.+]+", "-", "-and-".join(names).lower()).strip("-")[:64]
    notes.append(f"the Hub knows no licence {shown}: written as other, with that name")
    return {"license": "other", "license_name": metadata.get("license_name", name)}


def _parts(licences: str) -> list[str]:
    """Return the licences that a text names, one after the other, where the Hub knows them all."""
    parts = [licences] if _identifier_of(licences) else _BETWEEN.split(licences)
    return parts if all(map(_identifier_of, parts)) else [licences]


def _identifier_of(licence: str) -> str | None:
    name = licence.lower()
    return name if name in LICENCES else _LICENCE_OF.get(_bare(name))


def _bare(licence: str) -> str:
    words = re.sub(r"\b(the|licen[sc]e|version|public|community|v(?=\d))\b", "", licence)
    return re.sub(r"[^a-z0-9+]", "", re.sub(r"v(?=[\d. ])", "", words))


def _fit_languages(languages: list[str], notes: list[str]) -> list[str]:
    codes: list[str] = []
    left_out: list[str] = []
    for text in (part.strip() for words in languages for part in words.split(",")):
        code = _code_of(text)
        codes += [code] if code else []
        left_out += [] if code else [text]
    if left_out:
        listed = ", ".join(printable(text) for text in left_out[:3])
        notes.append(f"the Hub takes codes of languages, so {listed} is left out")
    return list(dict.fromkeys(codes))


def _code_of(language: str) -> str:
    """Return the ISO 639 code of a language, such as zh of zh-CN; empty if there is none."""
    word = language.lower()
    primary = re.split(r"[-_ ]", word)[0]
    for text in (word, primary):
        if text in _CODES or text in _SPECIAL or re.fullmatch(r"[a-z]{3}", text):
            return text
        if text in _LANGUAGE_OF:
            return _LANGUAGE_OF[text]
    return ""
