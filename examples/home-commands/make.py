"""Makes train.jsonl and test.jsonl: a spoken command to a house in, room, device and setting out.

Run `python make.py`; the files come out the same each time. Sentences, words for rooms and numbers of the test rows
never occur in training; the devices and what can be done with them are common to both. Rooms are many, so that copying
them is easier to learn than a list of them.
"""

import json
import random
from pathlib import Path

TRAIN = {
    "templates": (
        "{command} in the {room}.",
        "Please {command} in the {room}.",
        "Could you {command} in the {room}?",
        "In the {room}, {command}.",
        "Hey, {command} in the {room}, please.",
        "I want you to {command} in the {room}.",
        "When you have a moment, {command} in the {room}.",
        "It's for the {room}: {command}.",
        "{command} for me in the {room}.",
        "Would you {command} in the {room} now?",
        "We are in the {room}, so {command}.",
        "{command}, but only in the {room}.",
    ),
    "kinds": (
        "red", "green", "upper", "lower", "north", "east", "small", "large", "old", "new", "guest", "summer",
        "winter", "front", "main", "second", "garden", "white", "family", "master", "kids", "corner",
        "attic", "forest", "golden", "long", "quiet", "sunny", "private", "public", "stone", "wooden", "oak",
        "pine", "rose", "lake", "mountain", "city", "royal", "silver",
    ),
    "places": (
        "kitchen", "bedroom", "bathroom", "office", "hall", "garage", "basement", "nursery", "library",
        "porch", "cellar", "gym", "workshop", "pantry", "terrace", "bar", "lobby", "chapel", "studio",
        "tower", "barn", "cabin", "lounge", "shop", "stable", "gallery", "cafe", "corridor", "laundry",
        "pavilion",
    ),
}  # fmt: skip
TEST = {
    "templates": (
        "Can you quickly {command} in the {room}?",
        "Over in the {room}, please {command}.",
        "My guests are in the {room}: {command}.",
        "Be so kind and {command} in the {room}.",
        "{command} in the {room} right away.",
        "I am leaving the {room}, {command} there.",
    ),
    "kinds": (
        "blue", "black", "south", "west", "middle", "tiny", "spare", "spring", "rear", "third", "village",
        "marble", "cedar", "river", "crystal",
    ),
    "places": (
        "balcony", "study", "sauna", "theater", "entrance", "closet", "conservatory", "dining room",
        "bakery", "classroom",
    ),
}  # fmt: skip

SWITCHED = {
    "on": ("turn on the {device}", "switch on the {device}", "turn the {device} on", "switch the {device} on"),
    "off": ("turn off the {device}", "switch off the {device}", "turn the {device} off", "switch the {device} off"),
}
MOVED = {
    "up": ("open the {device}", "raise the {device}", "pull the {device} up"),
    "down": ("close the {device}", "lower the {device}", "pull the {device} down"),
}
SET = ("set the {device} to {n}", "put the {device} to {n}", "bring the {device} to {n}", "change the {device} to {n}")
DEVICES = {
    "lights": SWITCHED, "lamp": SWITCHED, "fan": SWITCHED, "radio": SWITCHED, "heating": SWITCHED,
    "television": SWITCHED, "blinds": MOVED, "curtains": MOVED, "shutters": MOVED,
}  # fmt: skip
ADJUSTABLE = ("lights", "heating", "fan", "radio", "blinds")


def command(numbers: list[int], rng: random.Random) -> tuple[str, str]:
    """What is said, and the device and setting that it means."""
    if rng.random() < 0.4:
        device, n = rng.choice(ADJUSTABLE), rng.choice(numbers)
        return rng.choice(SET).format(device=device, n=f"{n} percent"), f"{device} {n}"
    device, settings = rng.choice(list(DEVICES.items()))
    setting, ways = rng.choice(list(settings.items()))
    return rng.choice(ways).format(device=device), f"{device} {setting}"


def rows(
    parts: dict[str, tuple[str, ...]], numbers: list[int], number: int, rng: random.Random
) -> list[dict[str, str]]:
    """`number` distinct rows."""
    made: dict[str, str] = {}
    while len(made) < number:
        room, (words, meaning) = rng.choice(parts["places"]), command(numbers, rng)
        if rng.random() < 0.7:
            room = f"{rng.choice(parts['kinds'])} {room}"
        sentence = rng.choice(parts["templates"]).format(command=words, room=room)
        made[sentence[0].upper() + sentence[1:]] = f"{room} | {meaning}"
    return [{"input": sentence, "output": output} for sentence, output in made.items()]


def make() -> dict[str, list[dict[str, str]]]:
    """The rows of both splits."""
    rng = random.Random(4)
    numbers = list(range(5, 100))
    rng.shuffle(numbers)
    return {"train": rows(TRAIN, numbers[:70], 1400, rng), "test": rows(TEST, numbers[70:], 300, rng)}


def main() -> None:
    for split, made in make().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        Path(__file__).with_name(f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
