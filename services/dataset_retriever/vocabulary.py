"""The words that columns' names and prompts are made of, and what each says.

    WHOLE, LAST, ANY, LABEL, TAG    how much a name makes a column an output: by the whole of it, its last word, any of
                                    its words, where the column is a label, where it tags words. 10 for what hardly is
                                    anything else, 5 for what often is
    MAIN, TITLES, NO_CONTENT, ...   what is read, what is not
    GROUPS                          words of one concept
    MAKES, TURNS, ...               how an instruction says what is wanted

A list of words is no theory; it is measured in tests/unit/test_columns.py on the schemas that stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _weighted(weights: Mapping[float, str]) -> dict[str, float]:
    """{name: weight}; "_" stands for the space within a name."""
    return {name.replace("_", " "): weight for weight, names in weights.items() for name in names.split()}


WHOLE = _weighted({
    11: "label_text label_name",
    10.5: "label labels gold_label",
    10: "output outputs target targets target_text tgt completion response",
    9: "final_decision",
    8.2: "correct_answer",
    8.1: "best_answer",
    8.7: "answer answers answer_text",
    8: "human_readable",
    7: "fixed",
})  # fmt: skip
LAST = _weighted({
    9.5: "intent intents sentiment",
    9: "label labels emotion emotions stance judgment judgement duplicate verdict",
    8: "translation translations target tgt output response completion",
    7.6: "rating star stars similarity relatedness",
    8.6: "summary summaries highlights tldr",
    7.5: "abstract sql",
    7.4: "answer answers",
    7: """spans correction corrections simplification simplifications compression reference references docstring
          solution""",
    6.8: "documentation",
    6.5: "code actions decomposition",
    6: "toxicity score",
    5: "directions lex annotations",
    4: "line headline paraphrase cefr categories aspects",
})  # fmt: skip
ANY = _weighted({6.5: "sparql simple simplified edited coherent corrected fixed compressed", 5: "final", 4: "expanded"})
LABEL = _weighted({8.5: "category topic topics class", 5: "genre", 4: "language", 2: "type aspect", 1: "source"})
TAG = _weighted({8: "ner upos labels", 7.5: "pos", 7: "chunk nested tags", 6: "xpos", 5: "lemmas deprel"})
# An answer's spellings and parts come after its own text; what is no answer comes nowhere.
LESS = {
    "incorrect": 9, "wrong": 9, "distractor": 9, "toks": 5, "tokens": 5, "whole": 3, "matched": 2.5, "normalized": 2,
    "orig": 1, "extractive": 0.5, "aliases": 0.4, "wellformed": 0.3, "short": 0.2,
}  # fmt: skip
# Where a question has options, the key to them, the likeliest first.
KEYS = (
    "answer key", "answer", "label", "labels", "correct", "correct answer", "correct option", "gold", "target", "cop",
    "answer idx", "answer index", "solution", "gold label",
)  # fmt: skip

# What a model reads.
MAIN = _words("""
    persona personas input inputs text texts sentence sentences sent question questions query premise hypothesis
    context contexts ctx passage passages paragraph para document documents article articles dialogue dialog dialogs
    dialogues conversation content contents review reviews body sms tweet tweets post posts comment comments message
    messages prompt instruction utterance utterances concepts words word meaning support supports claim statement
    story plot situation background goal problem startphrase selftext code func function original buggy normal
    complex incoherent base commands command nl table tripleset triple triples evidence abstract description verse
    email transcript speech src header stem observation report options choices mr facts snippet script quote poem
    lyrics news
""")
TITLES = _words("title headline heading subject")
INSTRUCTS = _words("instruction task prompt context system")
NO_CONTENT = _words("""
    id ids idx ind index guid uid uuid hash sha url urls uri link links path filename file files date dates time
    timestamp utc year month day start starts end ends offset offsets split phase type types kind name names author
    authors user users userid username worker annotator annotators gender age accent locale speaker speakers sender
    lang langs language version licence license repo repository domain count counts num size length len confidence
    parse status origin meta metadata votes ups downs round level bin ratio region shape segment marketplace
    subreddit category genre party state source sources spans value mid lid eid eval checksum extension stars
    position rank port lists probability key keys entropy
""")
NEVER_GIVEN = _words("""
    act acts annot annotated explanation explanations rationale reason reasons exp distractor incorrect label labels
    annotation annotations tags upos xpos lemmas feats deprel deps misc head edits
""")
# A column whose name ends on one of these gives away an output of the same family.
ANSWERS = _words("answer answers alias aliases spans wellformed decision")
SUMMARIES = _words("summary summaries highlights tldr abstract headline topic")
REWRITTEN = _words("""
    simple simplified simplification simplifications coherent edited corrected correction corrections fixed
    compression compressed final
""")
TARGETS = _words("output outputs target targets tgt response completion")
FAMILIES = (ANSWERS, SUMMARIES, REWRITTEN, TARGETS, _words("sql query"), _words("docstring documentation"))
# In a record of such a name the output may stand deep.
TOLD = _words("answer answers output outputs target targets sql summary label labels annotations lex qas")
# Where nothing else is an output, what a text is sorted by.
SORTS = _words("category categories topic genre class section subject")
# Beside these a score is what readers voted.
VOTED = _words("author subreddit permalink ups upvote upvotes created votes")
# What a summary is made of.
LONG = _words("""
    article articles text document documents body description content contents dialogue dialog fulltext full paper
    report section sections paragraph paragraphs passage transcript news speech plot story conversation email review
    sentence source graph post posts message messages
""")
# As the last part of a dotted name these say nothing: "answers.text".
GENERIC = _words("text texts body value string span spans input_text content sentence")

GROUPS = {
    "document": _words(
        "document context contexts passage paragraph para article text story body content page plot news"
    ),
    "question": _words("question quiz"),
    "answer": _words("answer reply"),
    "summary": _words("summary summarize summarise summarization highlight tldr abstract gist digest"),
    "title": TITLES,
    "label": _words("label class category classify classification categorize intent sentiment emotion topic stance"),
    "score": _words("score rating rate star similarity relatedness grade"),
    "code": _words("code program function func implementation script snippet"),
    "prose": _words("docstring documentation comment nl doc"),
    "pos": _words("pos upos"),
    "ner": _words("ner entity named"),
    "explanation": _words("explanation explain rationale reason why justification exp"),
    "simple": _words("simple simplified simplify simplification simpler"),
    "correction": _words("correction correct corrected fix fixed"),
    "word": _words("word token"),
    "dialogue": _words("dialogue dialog conversation chat"),
}

# What follows these verbs is wanted.
MAKES = _words("""
    generate write produce create give predict output return compose list extract find identify tell name provide
    determine decide guess state choose detect recognize recognise propose suggest reply select show
    invent make design say insert
""")
# What follows these is given; the verb itself says what is wanted.
TURNS = {
    "answer": "answer", "solve": "answer", "classify": "label", "categorize": "label", "categorise": "label",
    "label": "label", "tag": "tag", "rate": "score", "score": "score", "grade": "score", "summarize": "summary",
    "summarise": "summary", "simplify": "simple", "correct": "correction", "fix": "correction",
    "translate": "translation", "describe": "prose", "document": "prose", "explain": "explanation", "turn": "",
    "convert": "", "transform": "", "rewrite": "", "paraphrase": "paraphrase", "expand": "", "map": "",
}  # fmt: skip
# After these comes what is given; after some of them, behind a turning verb, what is wanted.
GIVEN = _words("""
    to from for given based using about of that which whose when where if whether who why how on with by in at what
""")
WANTED = _words("into to as by with in")
# Right after a verb these begin what is wanted: "guess which party".
ASKS = _words("which what whose who")
NOTHING = _words("""
    a an the this that these those its it is are was be and or each every some any one of to your my our their his
    her plain new following suitable appropriate relevant
""")

_NAMED = """
aa Afar ab Abkhaz af Afrikaans ak Akan sq Albanian am Amharic ar Arabic an Aragonese hy Armenian as Assamese
ay Aymara az Azerbaijani ba Bashkir eu Basque be Belarusian bn Bengali bs Bosnian br Breton bg Bulgarian my Burmese
ca Catalan zh Chinese cs Czech da Danish dv Maldivian nl Dutch dz Dzongkha en English eo Esperanto et Estonian ee Ewe
fo Faroese fj Fijian fi Finnish fr French fy Frisian gl Galician lg Ganda ka Georgian de German el Greek gn Guarani
gu Gujarati ht Haitian ha Hausa he Hebrew hi Hindi hu Hungarian is Icelandic ig Igbo id Indonesian ga Irish it Italian
ja Japanese jv Javanese kn Kannada kk Kazakh km Khmer rw Kinyarwanda ky Kyrgyz ko Korean ku Kurdish lo Lao la Latin
lv Latvian ln Lingala lt Lithuanian lb Luxembourgish mk Macedonian mg Malagasy ms Malay ml Malayalam mt Maltese
mi Maori mr Marathi mn Mongolian ne Nepali no Norwegian nb Bokmål nn Nynorsk oc Occitan or Odia om Oromo ps Pashto
fa Persian pl Polish pt Portuguese pa Punjabi qu Quechua ro Romanian ru Russian sm Samoan sa Sanskrit gd Gaelic
sr Serbian sn Shona sd Sindhi si Sinhala sk Slovak sl Slovenian so Somali st Sotho es Spanish su Sundanese sw Swahili
sv Swedish tl Tagalog tg Tajik ta Tamil tt Tatar te Telugu th Thai bo Tibetan ti Tigrinya to Tongan ts Tsonga
tn Tswana tr Turkish tk Turkmen uk Ukrainian ur Urdu ug Uyghur uz Uzbek vi Vietnamese cy Welsh wo Wolof xh Xhosa
yi Yiddish yo Yoruba zu Zulu
"""
LANGUAGES = dict(zip(_NAMED.lower().split()[1::2], _NAMED.split()[::2], strict=True))
"""{name in lower case: ISO 639-1 code}."""
LONG_CODES = {
    "eng": "en", "deu": "de", "ger": "de", "fra": "fr", "fre": "fr", "spa": "es", "ita": "it", "rus": "ru", "jpn": "ja",
    "zho": "zh", "chi": "zh", "ara": "ar", "por": "pt", "nld": "nl", "kor": "ko", "tur": "tr", "hin": "hi", "pol": "pl",
    "ces": "cs", "ukr": "uk", "vie": "vi", "fin": "fi", "swe": "sv", "dan": "da", "hun": "hu", "ron": "ro", "ell": "el",
}  # fmt: skip
