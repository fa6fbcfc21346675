"""Makes train.jsonl and test.jsonl: a German sentence with a time of day in, hours and minutes in digits out.

Run `python make.py`; the files come out the same each time. Sentences, names and times of the test rows never occur
in training; the ways to say a time are common to both.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

TRAIN = {
    "templates": (
        "Der Zug nach {place} fährt um {time} ab.",
        "Wir treffen uns um {time} vor dem Kino.",
        "{name} kommt um {time} an.",
        "Um {time} beginnt die Sitzung.",
        "Bitte wecken Sie mich um {time}.",
        "Der Unterricht endet um {time}.",
        "Ab {time} ist das Büro wieder besetzt.",
        "Der Zahnarzt hat um {time} noch einen Termin frei.",
        "{name} ruft um {time} zurück.",
        "Die Apotheke schließt um {time}.",
        "Das Spiel wurde um {time} angepfiffen.",
        "Können wir das Gespräch auf {time} verschieben?",
        "Die Fähre legt um {time} an.",
        "Seit {time} ist der Strom weg.",
        "Spätestens um {time} muss das Paket bei der Post sein.",
        "Der Film fängt um {time} an, sagt {name}.",
        "Um {time} hat {name} das Haus verlassen.",
        "Die Nachrichten laufen um {time}.",
        "Der Bus aus {place} hält hier um {time}.",
        "Das Frühstück gibt es bis {time}.",
        "Ich habe für {time} einen Tisch reserviert.",
        "Die Führung durch {place} startet um {time}.",
        "Kurz vor dem Essen, um {time}, klingelte es.",
        "Die Lieferung kam erst um {time}.",
        "{name} geht jeden Tag um {time} laufen.",
        "Der Wecker steht auf {time}.",
    ),
    "names": ("Anna", "Herr Weber", "Frau Schulz", "Lukas", "der Chef", "Oma", "Jonas", "Frau Klein", "Mia"),
    "places": ("Köln", "Dresden", "Bremen", "Ulm", "Mainz", "Kiel", "Graz", "Basel", "Erfurt", "Potsdam"),
}
TEST = {
    "templates": (
        "Das Flugzeug aus {place} landet um {time}.",
        "Der Laden öffnet um {time}.",
        "Um {time} wird {name} abgeholt.",
        "Die Prüfung ist auf {time} angesetzt.",
        "Hat {name} wirklich um {time} geschrieben?",
        "Der Notruf ging um {time} ein.",
        "Das Konzert in {place} soll um {time} losgehen.",
        "Bis {time} können Sie das Zimmer nutzen.",
        "Die Müllabfuhr kommt um {time}.",
        "{name} stellt das Radio um {time} an.",
    ),
    "names": ("Paula", "Herr Nowak", "der Nachbar", "Frau Brandt", "Emil"),
    "places": ("Leipzig", "Zürich", "Hamburg", "Linz", "Trier"),
}

HOURS = ("zwölf", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf")
STEPS = {5: "fünf", 10: "zehn", 20: "zwanzig"}


def part_of_day(hour: int) -> str:
    """The word that tells three in the night from three in the afternoon."""
    if hour < 5 or hour == 23:
        return "nachts"
    if hour < 12:
        return "morgens"
    return "mittags" if hour == 12 else "nachmittags" if hour < 18 else "abends"


def said(hour: int, minute: int) -> Iterator[str]:
    """All ways in which the rows say a time."""
    yield f"{hour}:{minute:02} Uhr"
    yield f"{hour} Uhr {minute}" if minute else f"{hour} Uhr"
    this, coming, when = HOURS[hour % 12], HOURS[(hour + 1) % 12], part_of_day(hour)
    if minute == 15:
        yield f"Viertel nach {this} {when}"
    elif minute == 30:
        yield f"halb {coming} {when}"
    elif minute == 45:
        yield f"Viertel vor {coming} {when}"
    elif minute in STEPS:
        yield f"{STEPS[minute]} nach {this} {when}"
    elif 60 - minute in STEPS:
        yield f"{STEPS[60 - minute]} vor {coming} {when}"


def rows(parts: dict[str, tuple[str, ...]], times: list[int], number: int, rng: random.Random) -> list[dict[str, str]]:
    """`number` distinct rows. Half of them have a time that people say in words where there is one."""
    spoken = [time for time in times if len(list(said(*divmod(time, 60)))) == 3]
    made: dict[str, str] = {}
    while len(made) < number:
        in_words = rng.random() < 0.5
        hour, minute = divmod(rng.choice(spoken if in_words else times), 60)
        ways = list(said(hour, minute))
        time = ways[2] if in_words else rng.choice(ways[:2])
        sentence = rng.choice(parts["templates"]).format(
            time=time, name=rng.choice(parts["names"]), place=rng.choice(parts["places"])
        )
        made[sentence[0].upper() + sentence[1:]] = f"{hour:02} {minute:02}"
    return [{"input": sentence, "output": output} for sentence, output in made.items()]


def make() -> dict[str, list[dict[str, str]]]:
    """The rows of both splits."""
    rng = random.Random(2)
    times = list(range(24 * 60))
    rng.shuffle(times)
    return {"train": rows(TRAIN, times[:1180], 1400, rng), "test": rows(TEST, times[1180:], 300, rng)}


def main() -> None:
    for split, made in make().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        Path(__file__).with_name(f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
