r"""Words and units beside a value: which say nothing about it, and which change it.

Dropped are units and words in `\text{...}` ("5\text{ cm}", "\text{Area} = 5"), known units without
it ("5 cm"), words of four letters or more after a number ("12 ways"), and Chinese and Japanese ones
("12元"). Kept, so that the answer equals no bare number, are words that change the value:
"5\text{ million}", "\text{not } 5", "5万".
"""

import re

_CJK = "[\u3005\u3040-\u30ff\u3400-\u9fff]"
"""Han characters and kana."""
_TOKEN = re.compile(r"\\text\{([^{}]*)\}(?:\s*\^\s*(?:\{[^{}]*\}|\S))?")
_TOKENS = re.compile(rf"{_TOKEN.pattern}(?:\s*(?:[,/]|\\cdot)?\s*{_TOKEN.pattern})*")
_MEANINGFUL = re.compile(
    r"\b(?:not?|none|never|neither|except|without|minus|negative|plus|squared|cubed|mod|modulo|base|"
    r"hundreds?|thousands?|millions?|billions?|trillions?|dozens?|half|halves|thirds?|fourths?|"
    r"quarters?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|hundredths?|thousandths?|"
    r"than|least|most|factorial|root|power|over|divided|to|versus|vs|and|or)\b|"
    rf"(?<![A-Za-z^])\d|(?<!{_CJK})(?!千[米克瓦卡伏])[〇零一二三四五六七八九十百千万萬亿億兆半成割折负負不非未余餘多]|"
    r"以[上下内外]|分之|未[满満]|不[到足]|半(?![径徑])|[个個元]多",
    re.IGNORECASE,
)
_CONTRADICTING = re.compile(
    r"(?<![A-Za-z\\])(a\.?\s?m|p\.?\s?m|north|south|east|west|up|down|left|right|loss|profit|gain|increase|"
    r"decrease)\b",
    re.IGNORECASE,
)
_GLUED_UNITS = frozenset(("mm", "cm", "km", "kg", "mL", "kW", "kWh"))
_UNIT_NAMES = (
    "m s g h L N J W V K A dm ft in yd mi mg lb lbs oz ms sec secs min mins hr hrs day days yr yrs "
    "mph kph kmh fps rpm ml cc gal cup cups sq cu unit units per of deg rad usd USD EUR GBP Rs "
    "way ways Hz kHz MHz kJ kPa Pa mol yen won"
)
_UNITS = _GLUED_UNITS | frozenset(_UNIT_NAMES.split())
_LAST_WORD = re.compile(r"(?<![A-Za-z\\])([A-Za-z]+)\.?(?:\s*\^\s*(?:\{-?\d\}|\d))?$")
_PER = re.compile(r"\s*(?:/|\\cdot)$")
_LAST_CJK = re.compile(rf"(?<=[\d)}}\]])\s*({_CJK}+)$")
_ENDS_IN_SYMBOL = re.compile(
    r"\\(?!(?:cup|cap|setminus|in|cdot|times|pm|mp|leq|geq|neq|and|or)$)[a-z]+$"
)
_AM_PM = re.compile(r"(?<=\d)\s*(?:\\text\{\s*)?[ap]\.?\s?m\.?\s*\}?$", re.IGNORECASE)
_TEMPERATURE = re.compile(r"(?<=\\circ\})\s*(?:\\text\{\s*)?[CF]\}?$")
_DANGLING = re.compile(r"(?:\\cdot|\\times|/|\*)\s*$|\\frac\{\s*\}\{\s*\}|\^\{\s*\}|\(\s*\)$")
_WORDS = re.compile(r"[\w\s.'()!?&/-]*")
_WORD = re.compile(r"[^\W\d_]{3,}|\bno\b|[^\W\d_a-zA-Z]", re.IGNORECASE)


def plain_words(text: str) -> str | None:
    """The words in lower case if the whole answer is words, else None.

    Letters before any digit, and three in a row: "October 30" is words, "30 days" and "ab" are not.
    """
    bare = _TOKEN.sub(r" \1 ", text)
    if not _WORDS.fullmatch(bare) or "_" in bare or not _WORD.search(bare):
        return None
    if re.search(r"\d", _TOKEN.sub("", text)) and (
        bare != text or not re.match(r"\W*[^\W\d]{3}", bare)
    ):
        return None
    return " ".join(re.findall(r"\w+", bare.casefold()))


def contradicting_words(text: str) -> frozenset[str]:
    """Words such as am and pm, that tell two answers with the same number apart."""
    return frozenset(re.sub(r"[^a-z]", "", word.lower()) for word in _CONTRADICTING.findall(text))


def without_words(text: str) -> str:
    """Without the words and units that do not change the value; unchanged if any does."""
    text = _AM_PM.sub("", _TEMPERATURE.sub("", text))
    if "\\text" in text:
        text = _without_text(text)
    return _without_bare_units(text)


def _without_text(text: str) -> str:
    if any(_MEANINGFUL.search(match[1]) for match in _TOKEN.finditer(text)):
        return text
    result, position = "", 0
    for match in _TOKENS.finditer(text):
        before = (result + text[position : match.start()]).rstrip()
        after = text[match.end() :].lstrip()
        is_between = re.search(r"[\w)}\]]$", before) and re.match(
            r"[\w({]|\\(?:frac|sqrt|pi|\{)", after
        )
        letter = re.fullmatch(r"\s*([A-Za-z])\s*", match[1])
        if letter and match.group().endswith("}") and re.search(r"(?:^|[(=+-])$", before):
            result = before + letter[1]
        elif is_between:
            return text
        else:
            result = before
        position = match.end()
    result += text[position:]
    while (shorter := _DANGLING.sub("", result).strip()) != result:
        result = shorter
    return result if result else _TOKEN.sub(r"\1", text)


def _without_bare_units(text: str) -> str:
    """ "5 cm", "10weeks", "60 km/h", "12 ways" and "12元" without what follows the number."""
    counted = _LAST_CJK.search(text)
    if counted and not _MEANINGFUL.search(counted[1]):
        text = text[: counted.start()]
    rest = text
    while match := _LAST_WORD.search(rest):
        head = rest[: match.start()].rstrip()
        is_spaced = len(head) < match.start() or head.endswith("/")
        if not _is_unit(match[1], is_spaced):
            break
        rest = _PER.sub("", head)
    has_number = re.search(r"[\d)}\]]$", rest) or (rest != text and _ENDS_IN_SYMBOL.search(rest))
    return rest if has_number else text


def _is_unit(word: str, is_spaced: bool) -> bool:
    if _MEANINGFUL.fullmatch(word):
        return False
    if is_spaced and word in _UNITS:
        return True
    return word in _GLUED_UNITS or (len(word) >= 4 and word.islower())
