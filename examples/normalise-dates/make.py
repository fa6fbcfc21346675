"""Makes train.jsonl and test.jsonl: a sentence with a date in, its year, month and day in digits out.

Run `python make.py`; the files come out the same each time. Sentences, names and dates of the test rows never occur
in training; the ways to write a date are common to both.
"""

import json
import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

TRAIN = {
    "templates": (
        "The invoice is dated {date}.",
        "{name} was hired on {date}.",
        "Our next meeting with {name} is on {date}.",
        "Please send the contract back by {date}.",
        "The warranty runs out on {date}.",
        "On {date} the new office opens.",
        "{name} moved to another team on {date}.",
        "Delivery is expected on {date}, between 8 and 12.",
        "The exam takes place on {date} in room {number}.",
        "As of {date}, ticket {number} is still open.",
        "{date}: {name} called about order {number}.",
        "We booked the flight for {date}.",
        "The lease ends on {date} and cannot be extended.",
        "Payment of bill {number} is due {date}.",
        "She last saw the doctor on {date}.",
        "{name} will be on leave from {date}.",
        "The concert was moved to {date}.",
        "Registration closes {date}.",
        "My passport expires on {date}.",
        "The package with number {number} left the warehouse on {date}.",
        "Signed by {name} on {date}.",
        "The last backup was made on {date}.",
        "Born on {date}, {name} grew up by the sea.",
        "Could we move the interview to {date}?",
        "Minutes of the board meeting held on {date}",
        "The train to the coast does not run on {date}.",
        "From {date} on, prices go up.",
        "{name} paid the deposit on {date}.",
        "Since {date} the lift has been out of order.",
        "I would like to cancel my stay starting {date}.",
        "The museum reopened on {date} after repairs.",
        "Your subscription renews on {date}.",
        "Version {number} was released on {date}.",
        "The wedding of {name} is on {date}.",
        "Applications received after {date} are not considered.",
        "The storm of {date} damaged the roof.",
    ),
    "names": (
        "Anna", "Mr Brown", "Dr Lee", "Carlos", "Fatima", "Mrs Olsen", "Peter", "Yuki", "the auditor",
        "Julia", "Omar", "Ms Grant", "the plumber", "Ivan", "Chloe", "our supplier", "Tom", "Professor Hill",
        "Nadia", "the landlord",
    ),
}  # fmt: skip
TEST = {
    "templates": (
        "The library wants the book back on {date}.",
        "{name} starts her new job on {date}.",
        "We expect the results of sample {number} on {date}.",
        "Has {name} confirmed the appointment on {date}?",
        "The shop stays closed on {date} for stocktaking.",
        "Report {number}, submitted on {date}",
        "According to {name}, the bridge was finished on {date}.",
        "Tickets for the match go on sale {date}.",
        "{date} is the last day to vote.",
        "The car was inspected on {date} and passed.",
        "Until {date} you can return the shoes.",
        "{name} gave notice on {date}.",
    ),
    "names": ("Beatrice", "Mr Novak", "the gardener", "Samuel", "Dr Iyer", "Mrs Petit", "Leo", "our lawyer"),
}

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def ordinal(day: int) -> str:
    """1 -> 1st, 12 -> 12th."""
    ending = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


FORMS: tuple[Callable[[date], str], ...] = (
    lambda d: f"{d.day} {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{MONTHS[d.month - 1]} {ordinal(d.day)}, {d.year}",
    lambda d: f"the {ordinal(d.day)} of {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{DAYS[d.weekday()]}, {d.day} {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{d.day} {MONTHS[d.month - 1][:3]} {d.year}",
    lambda d: f"{d.day:02}/{d.month:02}/{d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.year}-{d.month:02}-{d.day:02}",
)


def rows(
    parts: dict[str, tuple[str, ...]], days: list[date], numbers: range, rng: random.Random
) -> list[dict[str, str]]:
    """One row a day: each in a random sentence and a random way of writing it."""
    made = []
    for day in days:
        sentence = rng.choice(parts["templates"]).format(
            date=rng.choice(FORMS)(day), name=rng.choice(parts["names"]), number=rng.choice(numbers)
        )
        made.append({"input": sentence[0].upper() + sentence[1:], "output": f"{day:%Y %m %d}"})
    return made


def make() -> dict[str, list[dict[str, str]]]:
    """The rows of both splits."""
    rng = random.Random(1)
    first = date(1995, 1, 1)
    days = [first + timedelta(days=n) for n in rng.sample(range((date(2030, 1, 1) - first).days), 1500)]
    return {
        "train": rows(TRAIN, days[:1200], range(100, 500), rng),
        "test": rows(TEST, days[1200:], range(500, 900), rng),
    }


def main() -> None:
    for split, made in make().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        Path(__file__).with_name(f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
