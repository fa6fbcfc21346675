"""Tasks in words: what a prompt asks for and what a card says a model is for, by the same table.

    of(text)            the tasks that a text speaks of, each with how often
    asked(text)         the same of a prompt, which may name none and yet be clear
    bits(tasks)         a set of them as one 64-bit number, for arrays

A task here is narrower than the Hub's ("grammar", where the Hub has text2text-generation), since it decides which
model fits. A word of the table matches whole; one that ends in "*" is a beginning; "a_b" is two words in a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from catalogue import languages
from services.kit.text import words

_TABLE = """
translation: translat* traduc* traduz* übersetz* opus marian m2m100 nllb wmt14 wmt16 wmt19 kde4 flores flores200
    ccmatrix render interpreter 翻訳 翻译 перевед* перевод* 번역*
summarization: summar* condens* abstractive tldr tl_dr cnn_dailymail cnndm cnn xsum xlsum samsum billsum mlsum
    multinews multi_news booksum gigaword newsroom reddit_tifu sum_up zusammenfass* fasse_den résum* resum* riassum*
    要約 摘要 总结 لخص* ملخص* 요약* содержание саммари
qa: squad squad2 squadv2 squad_v2 question_answering questions_answering unifiedqa extractive_qa
    reading_comprehension qa answer_a answer_the answer_questions answering newsqa hotpotqa boolq triviaqa trivia nq
    natural_questions passage_question question_passage 質問 問題 回答 질문*
closed-qa: closed_book ssm triviaqa trivia open_domain general_knowledge factual_questions nq webquestions
question-generation: question_generation questions_generation generate_question generate_questions write_questions
    qg qag question_generator ask_about aqg distractor distractors quiz mcq
sentiment: sentiment* imdb sst2 sst rotten positive_or negative_or opinion yelp amazon_polarity polarity
emotion: emotion* feeling* goemotions joy mood
aspect: aspect aspects absa aste atsc atesc acos opinion_target semeval2014
classification: classif* categor* label_the labels agnews ag_news topic_of
intent: intent* banking77 clinc150 massive utterance snips slot slots nlu
entities: ner named_entity named_entities entity entities conll conll2003 ontonotes people_places names_of persons
    organisations organizations wikiann
relations: relation relations triple triples triplet triplets rebel openie knowledge_graph redfm
keywords: keyword* keyphrase* key_phrases kp20k inspec tag_generation
headline: headline* title titles titlegen subject_line one_line
paraphrase: paraphras* parrot paws quora qqp rephras* other_words tapaco rewording reword
simplification: simplif* simple_words simpler plain_language wikilarge asset lay simple_to easy_to
grammar: gramma* gec jfleg coedit error_correction grammatical* conll14 corrector ungrammatical lang8 wiked
spelling: spell* typo typos misspel* neuspell lexical_normalization ocr
punctuation: punctuat* capitali* casing truecas* diacrit* restor*
detox: detox* toxic* polite* civil* rude paradetox
style: formal informal formality gyafc xformal style_transfer styletransfer tone neutral_style casual active_voice
    passive
nli: nli mnli snli xnli anli rte entail* contradict* hypothesis premise multinli esnli qnli
similarity: similarity stsb sts duplicate duplicates mrpc qqp paws same_meaning mean_the sentences_mean
hate: hate hateful offensive abusive toxic toxicity hatespeech
irony: sarcas* irony ironic humor humour joke jokes figurative
sql: sql text2sql nl2sql wikisql spider database databases tapex picard sparql cypher
code: code python codet5 codet5p codexglue conala mbpp program programs programming java javascript plbart apps
    code_generation codebert snippet snippets function
code-summary: code_summarization code_comment docstring docstrings function_does code_explain* explain_what
    code2text
shell: bash shell command_line nl2bash terminal commands
regex: regex regular_expression regular_expressions
data-to-text: webnlg dart totto data_to rdf table_to tables e2e_nlg triples_as meaning_representation table_row
    attribute verbali*
words-to-text: common_gen commongen keytotext k2t keywords_to given_words concepts words_to
math: math* gsm8k aqua aquarat arithmetic word_problem word_problems svamp drop numeric* algebra equation equations
dialogue: dialog* chat* convers* blenderbot godel assistant talk personachat empathetic* multiwoz dailydialog
    utterances
state: state_tracking dst multiwoz slot slots task_oriented booking sgd taskmaster crosswoz
instructions: instruction* flan alpaca tk_instruct natural_instructions dolly lamini t0 p3 xp3 mt0 instructed
recipe: recipe* cook* ingredient* cocktail*
poem: poem* poet* lyric* couplet* song songs haiku verse
story: story stories narrativ* fiction novel tale fairytale writingprompts
ranking: rank* rerank* msmarco ms_marco relevance monot5 mmarco inpars beir relevant retriev*
queries: doc2query search_queries query_generation docttttt5query doct5query
amr: amr abstract_meaning
dates: temporal tempor* timex* timeml tempeval timebank date_and dates_and time_expressions iso_format
molecules: molecul* smiles chem* chebi molt5 drug protein*
medical: medic* clinical biomed* pubmed mimic radiolog* patient* health* disease* pmc scifive biobart mednli
legal: legal* law laws court* contract* jurisprud* billsum eurlex jrc europarl dcep bill
science: scien* arxiv pubmed scholar* academic paper papers abstracts s2orc scitldr
news: news newspaper article articles journal* cnn xsum gazeta
fact-check: fact_check* fever claim claims factual* veracity misinformation fact_verification
commonsense: commonsense common_sense csqa cosmosqa piqa reasoning
tables: table tables tapex wikitablequestions tabular spreadsheet column columns
transliteration: translit* romani*
"""


def _rows() -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    task = ""
    for piece in _TABLE.split():
        if piece.endswith(":"):
            task = piece[:-1]
            rows[task] = []
        else:
            rows[task].append(piece)
    return rows


_ROWS = _rows()
TASKS = tuple(_ROWS)
assert len(TASKS) <= 64
_NUMBERS = {task: number for number, task in enumerate(TASKS)}

_WHOLE: dict[str, tuple[str, ...]] = {}
_BEGINNINGS: list[tuple[str, str]] = []
for _task, _pieces in _ROWS.items():
    for _piece in _pieces:
        if _piece.endswith("*"):
            _BEGINNINGS.append((_piece[:-1], _task))
        else:
            # What the word splitter makes of it is what a text's words are compared with.
            _key = " ".join(words(_piece.replace("_", " ")))
            _WHOLE[_key] = (*_WHOLE.get(_key, ()), _task)
_QUESTION = frozenset(("question", "questions"))
_PASSAGE = frozenset(("passage", "passages", "paragraph", "paragraphs", "context", "contexts", "text", "document"))
_OTHERS_WITH_QUESTIONS = frozenset(("question-generation", "sql", "tables"))
_LONGEST = 20_000
_FIRSTS = frozenset(key.split()[0] for key in _WHOLE if " " in key)


def of(text: str | Sequence[str]) -> Counter[str]:
    """The tasks that a text, or its words, speaks of, each with the number of places."""
    tokens = words(text) if isinstance(text, str) else text
    found: Counter[str] = Counter()
    before = ""
    for token in tokens:
        for task in _of_word(token):
            found[task] += 1
        if before in _FIRSTS:
            for task in _WHOLE.get(f"{before} {token}", ()):
                found[task] += 1
        before = token
    return found


def asked(text: str) -> Counter[str]:
    """The tasks that a prompt asks for. A question beside a text is answered; two languages are translated."""
    tokens = words(text[:_LONGEST])
    found, vocabulary = of(tokens), set(tokens)
    if _QUESTION & vocabulary and _PASSAGE & vocabulary and not found.keys() & _OTHERS_WITH_QUESTIONS:
        found["qa"] += 1
    if not found and all(languages.direction(text)):
        found["translation"] += 1
    return found


def bits(tasks: Iterable[str]) -> int:
    """A set of tasks as a number; what is no task is left out."""
    return sum(1 << number for number in {_NUMBERS[task] for task in tasks if task in _NUMBERS})


@lru_cache(maxsize=1 << 18)
def _of_word(word: str) -> tuple[str, ...]:
    return (*_WHOLE.get(word, ()), *dict.fromkeys(task for start, task in _BEGINNINGS if word.startswith(start)))
