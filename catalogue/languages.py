"""Languages in words, ids and scripts: "from German into English", "opus-mt-de-en", "日本語".

    named(text)               codes of the languages that an English text names, in order
    written(text)             the code of the one language that the text's script belongs to; "" where many share it
    of_id(id)                 codes in a model's id: its names, its codes, what its family knows; MULTILINGUAL
    direction(text)           (from, to) of a text about translation
    known(codes)              codes of the Hub (eng, jpn, zh-CN, "English") as ISO 639-1, what is no language left out
    bits(codes), of_bits      a set of them as BITS numbers of 64 bits, for arrays, and back

Codes are ISO 639-1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

MULTILINGUAL = "multilingual"

# ISO 639-1, ISO 639-3 (and 639-2's, where it differs), English names.
_TABLE = """
af afr Afrikaans; am amh Amharic; ar ara,arb Arabic; as asm Assamese; ay aym Aymara; az aze Azerbaijani;
ba bak Bashkir; be bel Belarusian; bg bul Bulgarian; bm bam Bambara; bn ben Bengali,Bangla; bo bod,tib Tibetan;
br bre Breton; bs bos Bosnian; ca cat Catalan; ceb ceb Cebuano; co cos Corsican; cs ces,cze Czech; cv chv Chuvash;
cy cym,wel Welsh; da dan Danish; de deu,ger German,Deutsch; ee ewe Ewe; el ell,gre Greek; en eng English;
eo epo Esperanto; es spa Spanish,Castilian,Español; et est Estonian; eu eus,baq Basque; fa fas,per,pes Persian,Farsi;
ff ful Fula; fi fin Finnish; fj fij Fijian; fo fao Faroese; fr fra,fre French,Français; fy fry Frisian; ga gle Irish;
gd gla Gaelic; gl glg Galician; gn grn Guarani; gu guj Gujarati; ha hau Hausa; haw haw Hawaiian; he heb Hebrew;
hi hin Hindi; hr hrv Croatian; ht hat Haitian; hu hun Hungarian; hy hye,arm Armenian; id ind Indonesian; ig ibo Igbo;
is isl,ice Icelandic; it ita Italian,Italiano; ja jpn,jap Japanese; jv jav Javanese; ka kat,geo Georgian;
kk kaz Kazakh; km khm Khmer; kn kan Kannada; ko kor Korean; ku kur Kurdish; ky kir Kyrgyz; la lat Latin;
lb ltz Luxembourgish; lg lug Luganda; ln lin Lingala; lo lao Lao; lt lit Lithuanian; lv lav Latvian; mg mlg Malagasy;
mi mri,mao Maori; mk mkd,mac Macedonian; ml mal Malayalam; mn mon Mongolian; mr mar Marathi; ms msa,may,zsm Malay;
mt mlt Maltese; my mya,bur Burmese; nb nob Norwegian,Bokmål; ne nep Nepali; nl nld,dut Dutch; nn nno Nynorsk;
ny nya Chichewa; oc oci Occitan; om orm Oromo; or ori Odia,Oriya; os oss Ossetian; pa pan Punjabi,Panjabi;
pcm pcm Pidgin; pl pol Polish; ps pus Pashto; pt por Portuguese,Português; qu que Quechua; rn run Kirundi;
ro ron,rum Romanian; ru rus Russian; rw kin Kinyarwanda; sa san Sanskrit; sd snd Sindhi; se sme Sami; si sin Sinhala;
sk slk,slo Slovak; sl slv Slovenian,Slovene; sm smo Samoan; sn sna Shona; so som Somali; sq sqi,alb Albanian;
sr srp Serbian; st sot Sotho; su sun Sundanese; sv swe Swedish; sw swa,swh Swahili; ta tam Tamil; te tel Telugu;
tg tgk Tajik; th tha Thai; ti tir Tigrinya; tk tuk Turkmen; tl tgl,fil Tagalog,Filipino; tn tsn Tswana;
tr tur Turkish; tt tat Tatar; tw twi Twi; ug uig Uyghur; uk ukr Ukrainian; ur urd Urdu; uz uzb Uzbek;
vi vie Vietnamese; wo wol Wolof; xh xho Xhosa; yi yid Yiddish; yo yor Yoruba;
zh zho,chi,cmn Chinese,Mandarin,Cantonese; zu zul Zulu
"""
_ROWS = [
    (code, alpha3.split(","), names.split(","))
    for code, alpha3, names in (row.split(maxsplit=2) for row in _TABLE.replace("\n", " ").split(";"))
]
CODES = tuple(code for code, _, _ in _ROWS)
_BY_NAME = {name.lower(): code for code, _, names in _ROWS for name in names}
_BY_ALPHA3 = {alpha3: code for code, alphas, _ in _ROWS for alpha3 in alphas}
# Old and regional codes that cards have.
_OTHERS = {"no": "nb", "iw": "he", "in": "id", "jp": "ja", "kr": "ko", "cn": "zh", "ua": "uk", "dk": "da", "yue": "zh"}
NAMES = {code: names[0] for code, _, names in _ROWS}

BITS = 3
"""How many 64-bit numbers hold a set of languages."""
_NUMBERS = {code: number for number, code in enumerate((MULTILINGUAL, *CODES))}
assert len(_NUMBERS) <= 64 * BITS

# Families that know a hundred languages, and those of one.
_MULTILINGUAL_ID = re.compile(
    r"(^|[-_/.])(u?mt5|mt0|mbart\w*|m2m\w*|nllb\w*|byt5|xlm|bloomz?|madlad\w*|aya|multi(lingual)?|m2o|xlsum|crosssum|xnli|mul)([-_/.]|$)",
    re.IGNORECASE,
)
_OF_ONE = (
    ("ko", re.compile(r"(^|[-_/])(kobart|kot5|pko|ke-?t5)", re.IGNORECASE)),
    ("ru", re.compile(r"(^|[-_/])(ru-?t5|rubert|fred|rugpt|rum?bart)", re.IGNORECASE)),
    ("it", re.compile(r"(^|[-_/])(it5|bart-it)", re.IGNORECASE)),
    ("pt", re.compile(r"(^|[-_/])(ptt5)", re.IGNORECASE)),
    ("ar", re.compile(r"(^|[-_/])(arat5|arabart|arabert)", re.IGNORECASE)),
    ("vi", re.compile(r"(^|[-_/])(vit5|bartpho|vinai)", re.IGNORECASE)),
    ("fr", re.compile(r"(^|[-_/])(m?barthez|camembert)", re.IGNORECASE)),
    ("bn", re.compile(r"(^|[-_/])(banglat5)", re.IGNORECASE)),
    ("zh", re.compile(r"(^|[-_/])(randeng|mengzi|chatyuan|pegasus-238m|cpt)", re.IGNORECASE)),
)
_PIECE = re.compile(r"[A-Za-z]+")
_QUAD = re.compile(r"(^|[-_])(ja|ko|ru|fr|it|de|es)quad", re.IGNORECASE)
# In a name such as opus-mt-tc-big-it-en these are no languages; codes that are words, too, count in pairs alone.
_MARIAN = re.compile(r"^opus-?mt-(tc-)?((big|base|tiny|small)-)?")
_SPLIT = re.compile(r"[-_./]+(?:to[-_]+)?|(?<=\b[a-z]{2})2(?=[a-z]{2}\b)|(?<=_[a-z]{2})2(?=[a-z]{2}(?:_|$))")
_WORD = re.compile(r"[^\W\d_]+")
_LONGEST = 20_000

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hy", re.compile(r"[\u0530-\u058f]")),
    ("ka", re.compile(r"[\u10a0-\u10ff]")),
    ("bn", re.compile(r"[\u0980-\u09ff]")),
    ("pa", re.compile(r"[\u0a00-\u0a7f]")),
    ("gu", re.compile(r"[\u0a80-\u0aff]")),
    ("ta", re.compile(r"[\u0b80-\u0bff]")),
    ("te", re.compile(r"[\u0c00-\u0c7f]")),
    ("kn", re.compile(r"[\u0c80-\u0cff]")),
    ("ml", re.compile(r"[\u0d00-\u0d7f]")),
    ("si", re.compile(r"[\u0d80-\u0dff]")),
    ("my", re.compile(r"[\u1000-\u109f]")),
    ("km", re.compile(r"[\u1780-\u17ff]")),
    ("lo", re.compile(r"[\u0e80-\u0eff]")),
    ("am", re.compile(r"[\u1200-\u137f]")),
    # Shared ones last, by the language that most writes in them, with the letters that tell others apart first.
    ("uk", re.compile(r"[іїєґ]", re.IGNORECASE)),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ur", re.compile(r"[ٹڈڑےں]")),
    ("fa", re.compile(r"[پچژگ]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
)
# So much of a text in one script is what it is written in; less is a quotation.
_ENOUGH = 0.2

# Between the two languages of a translation stand a few words, one of these among them.
_TO = frozenset(("to", "into", "in", "-", "->", "→"))
_FAR = 6
_TOKEN = re.compile(r"[^\W\d_]+|->|→|-")


def named(text: str) -> list[str]:
    """The languages that an English text names, by their first mention."""
    found = (_BY_NAME.get(word) for word in _WORD.findall(text[:_LONGEST].lower()))
    return list(dict.fromkeys(code for code in found if code))


def written(text: str) -> str:
    """The language whose script a fifth or more of the letters are in; "" for Latin and where there is none."""
    head = text[:2000]
    letters = sum(character.isalpha() for character in head)
    for code, script in _SCRIPTS:
        share = len(script.findall(head)) / letters if letters else 0.0
        # Japanese has kana among its Han characters, Ukrainian and Persian their letters among shared ones.
        if share >= (0.05 if code in ("ja", "uk", "fa", "ur") else _ENOUGH):
            return code
    return ""


def of_id(id: str) -> list[str]:
    """The languages that a model's id tells of; MULTILINGUAL where its family or its name says so."""
    name = id.rpartition("/")[2]
    found = [code for word in _PIECE.findall(name.lower()) if (code := _BY_NAME.get(word))]
    found += [code for code, pattern in _OF_ONE if pattern.search(name)]
    found += [quad[2].lower()] if (quad := _QUAD.search(name)) else []
    found += [code for code in pair_of_id(id) if code]
    if not found and _MULTILINGUAL_ID.search(name):
        found.append(MULTILINGUAL)
    return list(dict.fromkeys(found))


def pair_of_id(id: str) -> tuple[str, str]:
    """(from, to) of a translation model's id, such as opus-mt-de-en; ("", "") where it has none."""
    name = id.rpartition("/")[2].lower()
    bare = _MARIAN.sub("", name)
    # "mt" is Maltese in opus-mt-mt-en, and machine translation in every other name.
    codes = ["" if piece == "mt" and bare == name else _code(piece) for piece in _SPLIT.split(bare)]
    return next(((a, b) for a, b in pairwise(codes) if a and b and a != b), ("", ""))


def direction(text: str) -> tuple[str, str]:
    """(from, to) of the translation that an English text speaks of; "" where it does not say."""
    tokens = _TOKEN.findall(text[:_LONGEST].lower())
    places = [(place, _BY_NAME[token]) for place, token in enumerate(tokens) if token in _BY_NAME]
    for (start, source), (end, target) in pairwise(places):
        if source != target and end - start <= _FAR and _TO.intersection(tokens[start + 1 : end]):
            return source, target
    source = next((code for place, code in places if "from" in tokens[max(0, place - 2) : place]), "")
    target = next((code for place, code in places if _TO.intersection(tokens[max(0, place - 3) : place])), "")
    return source, target if target != source else ""


def known(codes: Iterable[object]) -> list[str]:
    """Languages as cards write them ("en", "eng", "zh-CN", "English", "multilingual") as codes; others are left out."""
    found = []
    for code in codes:
        word = str(code).strip().lower()
        if word in (MULTILINGUAL, "multi", "mul"):
            found.append(MULTILINGUAL)
        elif one := _code(re.split(r"[-_ ]", word)[0]) or _BY_NAME.get(word, ""):
            found.append(one)
    return list(dict.fromkeys(found))


def bits(codes: Iterable[str]) -> tuple[int, ...]:
    """A set of codes as BITS numbers of 64 bits; what is no code is left out."""
    whole = sum(1 << number for number in {_NUMBERS[code] for code in codes if code in _NUMBERS})
    return tuple((whole >> (64 * place)) & (1 << 64) - 1 for place in range(BITS))


@lru_cache(maxsize=1 << 14)
def of_bits(*numbers: int) -> tuple[str, ...]:
    """The set that `bits` made these numbers of, in the table's order."""
    whole = sum(number << (64 * place) for place, number in enumerate(numbers))
    return tuple(code for code, number in _NUMBERS.items() if whole >> number & 1)


def place(code: str) -> int:
    """The code's place in CODES; -1 of what is no code."""
    return _NUMBERS.get(code, 0) - 1


def _code(word: str) -> str:
    if word in _NUMBERS and word != MULTILINGUAL:
        return word
    return _OTHERS.get(word) or _BY_ALPHA3.get(word, "")
