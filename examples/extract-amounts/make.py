"""Makes train.jsonl and test.jsonl: a sentence about money in, the amount and its currency code out.

Run `python make.py`; the files come out the same each time. Sentences, names and amounts of the test rows never occur
in training; the ways to write a currency are common to both.
"""

import json
import random
from pathlib import Path

TRAIN = {
    "templates": (
        "Please transfer {money} to {name}.",
        "The invoice from {name} comes to {money}.",
        "{name} still owes us {money}.",
        "We received {money} on {day}.",
        "Your order {number} costs {money}.",
        "A fee of {money} applies after {days} days.",
        "The total is {money}, payable to {name}.",
        "I paid {money} for the repair.",
        "{name} refunded {money} last {day}.",
        "Rent is {money} a month.",
        "The deposit of {money} was returned.",
        "Tickets are {money} each for groups of {days}.",
        "{money} has been charged to your card.",
        "Could you lend me {money} until {day}?",
        "Bill {number}: {money}",
        "They offered {name} {money} for the bike.",
        "The hotel wants {money} for {days} nights.",
        "Donations reached {money} by {day}.",
        "Please confirm the payment of {money} for invoice {number}.",
        "The course costs {money} and lasts {days} weeks.",
        "{name} won {money} in the raffle.",
        "Shipping adds {money} to order {number}.",
        "We agreed on {money} per day.",
        "The fine is {money} if you are {days} days late.",
        "Only {money} is left on the gift card.",
        "My salary went up by {money}.",
    ),
    "names": (
        "Acme", "Mr Brown", "Northwind", "the plumber", "Anna", "Bluebird Books", "City Water", "Dr Lee",
        "Green Energy", "Omar", "Harbour Hotel", "the school", "Mrs Olsen", "Lakeside Gym", "Peter",
        "Orchard Foods",
    ),
}  # fmt: skip
TEST = {
    "templates": (
        "Kindly settle {money} with {name} this week.",
        "Repairing the roof set {name} back {money}.",
        "Reservation {number} requires {money} in advance.",
        "{name} sold the sofa for {money}.",
        "Our budget for {days} people is {money}.",
        "On {day} the price dropped to {money}.",
        "A discount of {money} was given on receipt {number}.",
        "The taxi took {days} minutes and cost {money}.",
        "{money} was stolen from {name}.",
        "Insurance covers up to {money}.",
    ),
    "names": ("Silver Bakery", "Beatrice", "the gardener", "Mr Novak", "Mountain Tours", "Dr Iyer"),
}

CURRENCIES = {
    "eur": ("€{n}", "{n} euros", "EUR {n}", "{n} €"),
    "usd": ("${n}", "{n} dollars", "USD {n}", "{n} US dollars"),
    "gbp": ("£{n}", "{n} pounds", "GBP {n}", "{n} British pounds"),
    "jpy": ("¥{n}", "{n} yen", "JPY {n}", "{n} Japanese yen"),
    "inr": ("₹{n}", "{n} rupees", "INR {n}", "{n} Indian rupees"),
    "chf": ("CHF {n}", "{n} francs", "{n} Swiss francs", "{n} CHF"),
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def rows(
    parts: dict[str, tuple[str, ...]], amounts: list[int], numbers: range, number: int, rng: random.Random
) -> list[dict[str, str]]:
    """`number` distinct rows; `numbers` are order numbers, which are not the amount."""
    made: dict[str, str] = {}
    while len(made) < number:
        amount, (code, forms) = rng.choice(amounts), rng.choice(list(CURRENCIES.items()))
        sentence = rng.choice(parts["templates"]).format(
            money=rng.choice(forms).format(n=amount),
            name=rng.choice(parts["names"]),
            number=rng.choice(numbers),
            day=rng.choice(DAYS),
            days=rng.randint(2, 9),
        )
        made[sentence[0].upper() + sentence[1:]] = f"{amount} {code}"
    return [{"input": sentence, "output": output} for sentence, output in made.items()]


def make() -> dict[str, list[dict[str, str]]]:
    """The rows of both splits."""
    rng = random.Random(3)
    amounts = list(range(10, 1000))
    rng.shuffle(amounts)
    return {
        "train": rows(TRAIN, amounts[:800], range(2000, 3000), 1400, rng),
        "test": rows(TEST, amounts[800:], range(3000, 4000), 300, rng),
    }


def main() -> None:
    for split, made in make().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        Path(__file__).with_name(f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
