r"""Words and units beside a value: which say nothing about it, and which change it.

Dropped are units and words in `\text{...}` ("5\text{ cm}", "\text{Area} = 5"), known units without
it ("5 cm"), and words of four letters or more after a number ("12 ways"). Kept, so that the answer
equals no bare number, are words that change the value: "5\text{ million}", "\text{not } 5".
"""

import re

_TOKEN = re.compile(r"\\text\{([^{}]*)\}(?:\s*\^\s*(?:\{[^{}]*\}|\S))?")
_TOKENS = re.compile(rf"{_TOKEN.pattern}(?:\s*(?:[,/]|\\cdot)?\s*{_TOKEN.pattern})*")
_MEANINGFUL = re.compile(
    r"\b(?:not?|none|never|neither|except|without|minus|negative|plus|squared|cubed|mod|modulo|base|"
    r"hundreds?|thousands?|millions?|billions?|trillions?|dozens?|half|halves|thirds?|fourths?|"
    r"quarters?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|hundredths?|thousandths?|"
    r"percent|than|least|most|factorial|root|power|over|divided|to|versus|vs|per cent)\b",
    re.IGNORECASE,
)
_CONTRADICTING = re.compile(
    r"(?<![A-Za-z\\])(a\.?\s?m|p\.?\s?m|north|south|east|west|up|down|left|right|loss|profit|gain|increase|"
    r"decrease)\b",
    re.IGNORECASE,
)
_LONG_UNITS = (
    "mm cm dm km mi ft feet foot inch inches in yd yard yards mile miles meter meters metre metres "
    "centimeter centimeters kilometer kilometers millimeter millimeters nm um "
    "mg kg lb lbs oz gram grams kilogram kilograms pound pounds ounce ounces ton tons "
    "ms sec secs second seconds min mins minute minutes hr hrs hour hours day days week weeks "
    "month months yr yrs year years mph kph kmh fps rpm "
    "ml mL dl cl liter liters litre litres gal gallon gallons quart quarts pint pints cup cups cc "
    "sq square cubic cu unit units per of deg degree degrees rad radian radians "
    "usd USD EUR GBP Rs rs dollar dollars cent cents euro euros yuan rupees yen "
    "Hz kHz MHz kW kWh kJ eV kPa Pa mol acres ways way"
).split()
_SHORT_UNITS = frozenset("msghLNJWVKA")
_UNITS = frozenset(_LONG_UNITS)
_LAST_WORD = re.compile(r"(?<![A-Za-z\\])([A-Za-z]+)\.?(?:\s*\^\s*(?:\{-?\d\}|\d))?$")
_PER = re.compile(r"\s*(?:/|\\cdot)$")
_TEMPERATURE = re.compile(r"(?<=\\circ\})\s*(?:\\text\{\s*)?[CF]\}?$")
_DANGLING = re.compile(r"(?:\\cdot|\\times|/|\*)\s*$|\\frac\{\s*\}\{\s*\}|\^\{\s*\}|\(\s*\)$")
_WORDS = re.compile(r"[A-Za-z0-9\s.'()!?&/-]*")
_WORD = re.compile(r"[A-Za-z]{3,}|\bno\b", re.IGNORECASE)


def plain_words(text: str) -> str | None:
    """The words in lower case if the whole answer is words, else None.

    Letters before any digit, and three in a row: "October 30" is words, "30 days" and "ab" are not.
    """
    bare = _TOKEN.sub(r" \1 ", text)
    if not _WORDS.fullmatch(bare) or not _WORD.search(bare):
        return None
    if re.search(r"\d", _TOKEN.sub("", text)) and (bare != text or not re.match(r"\W*[A-Za-z]{3}", bare)):
        return None
    return " ".join(re.findall(r"[a-z0-9]+", bare.lower()))


def contradicting_words(text: str) -> frozenset[str]:
    """Words such as am and pm, that tell two answers with the same number apart."""
    return frozenset(re.sub(r"[^a-z]", "", word.lower()) for word in _CONTRADICTING.findall(text))


def without_words(text: str) -> str:
    """Without the words and units that do not change the value; unchanged if any does."""
    text = _TEMPERATURE.sub("", text)
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
        is_between = re.search(r"[\w)}\]]$", before) and re.match(r"[\w({]|\\(?:frac|sqrt|pi|\{)", after)
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
    """ "5 cm", "10weeks", "60 km/h" and "12 ways" without what follows the number."""
    rest = text
    while match := _LAST_WORD.search(rest):
        head = rest[: match.start()].rstrip()
        is_spaced = len(head) < match.start() or head.endswith("/")
        if not _is_unit(match[1], is_spaced):
            break
        rest = _PER.sub("", head)
    has_number = re.search(r"[\d)}\]]$", rest) or (rest != text and re.search(r"\\[a-z]+$", rest))
    return rest if has_number else text


def _is_unit(word: str, is_spaced: bool) -> bool:
    if word in _UNITS:
        return True
    if not is_spaced or _MEANINGFUL.fullmatch(word):
        return False
    return word in _SHORT_UNITS or (len(word) >= 4 and word.islower())
