"""Guesses at the encoding of text that is not UTF-8."""

import re

import charset_normalizer

_OTHERS = [
    *("gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "cp866", "iso8859_5"),
    *("cp1253", "cp1255", "cp1256", "iso8859_6", "cp874"),
]
# The letters of languages, by their encodings; where several fit as well, the first one is the likeliest.
_LETTERS = {
    "cp1252": [
        *("àâæçéèêëîïôœùûüÿ", "äöüß", "áéíóúñü¿¡ªº", "àèéìíîòóùú", "áâãàçéêíóôõúü", "åäöéæøü", "áðéíóúýþæö"),
    ],
    "cp1250": ["ąćęłńóśźż", "áčďéěíňóřšťúůýžäĺľôŕ", "áéíóöőúüű", "ăâîșțşţ", "čćđšž"],
    "iso8859_2": ["ąćęłńóśźż", "áčďéěíňóřšťúůýžäĺľôŕ", "áéíóöőúüű", "ăâîşţ", "čćđšž"],
    "cp1254": ["çğıi̇öşüâîû"],
    "cp1257": ["ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž"],
}
_SIGNS = "‘’‚“”„–—…€£«»°•™®©§½ \xa0"  # of any language
_LIKELY = 0.9
_POSSIBLE = 0.5


def guesses(data: bytes) -> list[str]:
    """Encodings that text may be in, the likeliest first; latin-1 is one: it takes any bytes."""
    runs = re.findall(rb"[\x80-\xff]+", data)
    alone = sum(len(run) == 1 for run in runs)
    by_letters = _by_letters(data)
    # Letters with accents stand alone; letters of other scripts stand together.
    if alone > sum(map(len, runs)) / 3 or max(map(len, runs), default=0) <= 2:
        return by_letters
    with_others = [match.encoding for match in charset_normalizer.from_bytes(data, cp_isolation=_OTHERS)]
    return [*sorted(with_others, key=lambda name: not _is_japanese(data, name)), *by_letters]


def excerpt(data: bytes, encoding: str) -> str:
    """How the text around its first letter that is not ASCII reads: at most 40 characters of its line."""
    text = data.decode(encoding, "ignore")
    found = re.search(r"[^\W\x00-\x7f]", text) or re.search(r"[^\x00-\x7f]", text)
    at = found.start() if found else 0
    start = max(text.rfind("\n", 0, at) + 1, text.rfind("\r", 0, at) + 1, at - 20)
    line = re.split("[\r\n]", text[start : start + 40])[0]
    return "".join(char if char.isprintable() else " " for char in line).strip()


def _by_letters(data: bytes) -> list[str]:
    shares = {encoding: _share(data, encoding) for encoding in _LETTERS}
    best = max(shares.values())
    likely = [name for name, share in shares.items() if share == best and best >= _LIKELY]
    first = likely[0] if likely else "cp1252"
    others = [name for name, share in shares.items() if name != first and share >= _POSSIBLE]
    others.sort(key=lambda name: -shares[name])
    if first == "cp1252":
        return [first, "latin-1", *others]
    return [first, *others, *{"cp1252"}.difference(others), "latin-1"]


def _share(data: bytes, encoding: str) -> float:
    """How much of the text that is not ASCII consists of letters of one language in that encoding."""
    text = re.sub(r"[\x00-\x7f]", "", data.decode(encoding, "replace")).lower()
    alphabets = (set(letters) | set(_SIGNS) for letters in _LETTERS[encoding])
    return max(sum(char in letters for char in text) for letters in alphabets) / max(1, len(text))


def _is_japanese(data: bytes, encoding: str) -> bool:
    # In other encodings, Japanese looks like rare characters.
    text = data.decode(encoding, "ignore")
    letters = re.findall(r"[^\x00-\x7f]", text)
    return encoding in ("euc_jp", "cp932") and len(re.findall("[\u3041-\u30ff]", text)) > len(letters) / 3
