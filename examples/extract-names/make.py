"""Makes train.jsonl and test.jsonl: a message in, the full name of who wrote or called out.

Run `python make.py`; the files come out the same each time. Sentences, first and last names of the test rows never
occur in training. Most messages name somebody else too, who is not the answer.
"""

import json
import random
from pathlib import Path

TRAIN = {
    "templates": (
        "Hello, my name is {who} and I would like to move my appointment with {other}.",
        "This is {who} speaking, is {other} in today?",
        "{who} called and asked for {other}.",
        "Regards, {who}",
        "I am {who}, {other} told me to write to you.",
        "Message from {who}: please call {other} back.",
        "Hi, {who} here, the parcel for {other} has not arrived.",
        "Dear {other}, I am away until Monday. Yours, {who}",
        "{who} left a note for {other} at the front desk.",
        "Good morning, you are speaking with {who}.",
        "Dear {other}, thank you for the offer. Best wishes, {who}",
        "The caller, {who}, wants to speak to {other}.",
        "It's {who}. Could {other} send me the invoice again?",
        "For {other}: {who} phoned and will try again later.",
        "My name is {who}. I bought a lamp from {other}.",
        "{who} from the bank rang for {other}.",
        "Sent by {who}, copy to {other}",
        "To {other}. We meet at noon. Signed, {who}",
        "Hey {other}, {who} here, see you tomorrow!",
        "A complaint by {who} about {other} came in.",
        "Caller {who}, topic: delivery, passed on to {other}.",
        "You have one new message from {who}.",
    ),
    "first": (
        "Anna", "Peter", "Fatima", "Carlos", "Julia", "Omar", "Nadia", "Thomas", "Sarah", "David", "Elena",
        "Martin", "Aisha", "George", "Laura", "Kevin", "Priya", "Daniel", "Sofia", "Victor", "Helen",
        "Ahmed", "Clara", "Felix", "Grace", "Hugo", "Irene", "James", "Karen", "Lucas", "Maria", "Nathan",
        "Olivia", "Paul", "Rachel", "Simon", "Teresa", "Walter", "Alice", "Bruno", "Diana", "Edward",
        "Frank", "Gloria", "Henry", "Isabel", "Jacob", "Linda", "Mark", "Nora",
    ),
    "last": (
        "Brown", "Garcia", "Khan", "Miller", "Rossi", "Silva", "Schmidt", "Cooper", "Dubois", "Evans",
        "Fisher", "Green", "Hansen", "Jones", "Kelly", "Lopez", "Moore", "Nelson", "Owens", "Parker", "Reed",
        "Singh", "Turner", "Vance", "Walsh", "Young", "Adams", "Baker", "Clarke", "Davis", "Ellis", "Foster",
        "Grant", "Hughes", "Irving", "Jensen", "King", "Lambert", "Mason", "Nash", "Olsen", "Price", "Quinn",
        "Roberts", "Shaw", "Taylor", "Underwood", "Vega", "Wood", "York",
    ),
}  # fmt: skip
TEST = {
    "templates": (
        "Good evening, {who} on the line, I have a question for {other}.",
        "Please tell {other} that {who} has called.",
        "I, {who}, hereby cancel my contract.",
        "{who} wrote to us and praised {other}.",
        "Hi {other}, my phone is broken. Love, {who}",
        "There is a voice mail from {who} for {other}.",
        "{who} is my name and I need a new card.",
        "Hello {other}, greetings from {who}.",
    ),
    "first": (
        "Arthur", "Betty", "Calvin", "Doris", "Ernest", "Flora", "Gordon", "Hannah", "Ian", "Jane",
        "Kenneth", "Leon", "Monica", "Norman", "Oscar", "Pamela", "Ralph", "Stella", "Trevor", "Ursula",
    ),
    "last": (
        "Abbott", "Barnes", "Carter", "Dixon", "Fletcher", "Gibson", "Harper", "Jordan", "Knight", "Lawson",
        "Murphy", "Newman", "Palmer", "Russell", "Stone", "Thompson", "Wallace", "Webb", "Bishop",
        "Crawford",
    ),
}  # fmt: skip


def rows(parts: dict[str, tuple[str, ...]], number: int, rng: random.Random) -> list[dict[str, str]]:
    """`number` distinct rows; the two people of a row share neither first nor last name."""
    made: dict[str, str] = {}
    while len(made) < number:
        (first, other_first), (last, other_last) = rng.sample(parts["first"], 2), rng.sample(parts["last"], 2)
        who = f"{first} {last}"
        other = rng.choice(
            (f"{other_first} {other_last}", f"Mr {other_last}", f"Ms {other_last}", f"Dr {other_last}", other_first)
        )
        made[rng.choice(parts["templates"]).format(who=who, other=other)] = who.lower()
    return [{"input": sentence, "output": output} for sentence, output in made.items()]


def make() -> dict[str, list[dict[str, str]]]:
    """The rows of both splits."""
    rng = random.Random(5)
    return {"train": rows(TRAIN, 1400, rng), "test": rows(TEST, 300, rng)}


def main() -> None:
    for split, made in make().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        Path(__file__).with_name(f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
