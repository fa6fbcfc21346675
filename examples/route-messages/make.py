"""Makes train.jsonl and test.jsonl: a customer's message in, the department and the product out.

Run `python make.py`; the files come out the same each time. Sentences, greetings and products of the test rows never
occur in training; the six departments are common to both.
"""

import json
import random
from pathlib import Path

TRAIN = {
    "billing": (
        "I was charged twice for the {product}.",
        "Why is there an extra fee on my invoice?",
        "My credit card was billed but I have no receipt for the {product}.",
        "Please send me last month's invoice again.",
        "The amount on the bill for the {product} is wrong.",
        "When will the payment for the {product} be taken from my account?",
        "Can I pay for the {product} in three instalments?",
        "The tax on my invoice looks too high.",
        "I need a receipt with our company address.",
        "Your system declined my card when I paid for the {product}.",
    ),
    "shipping": (
        "Where is my {product}?",
        "The tracking number for the {product} does not work.",
        "My parcel should have arrived last week.",
        "Can you deliver the {product} to another address?",
        "The courier left the {product} with a stranger.",
        "How long does delivery of a {product} take?",
        "The package with the {product} is stuck at customs.",
        "Nobody rang, and now the parcel is back at the depot.",
        "Do you ship the {product} abroad?",
        "I was not at home when the driver came with the {product}.",
    ),
    "returns": (
        "I want to send the {product} back.",
        "The {product} is the wrong size, can I swap it?",
        "How do I get a return label for the {product}?",
        "The {product} arrived with a scratch, I want my money back.",
        "Can I still exchange the {product} after three weeks?",
        "You sent me a {product} that I did not order, please take it back.",
        "I changed my mind and would like to return my purchase.",
        "When do I get the refund for the {product} that I sent back?",
        "The colour of the {product} is not as shown, so I will give it back.",
        "May I return the {product} without its box?",
    ),
    "support": (
        "The {product} does not turn on.",
        "My {product} shows an error and then stops.",
        "How do I connect the {product} to the network?",
        "After the update the {product} is very slow.",
        "The screen of the {product} stays black.",
        "I cannot install the software for the {product}.",
        "The {product} makes a strange noise when it runs.",
        "How do I reset the {product}?",
        "The battery of the {product} is empty after an hour.",
        "The app crashes whenever I open the settings.",
    ),
    "account": (
        "I forgot my password.",
        "Please change the email address of my profile.",
        "How do I delete my account?",
        "I cannot log in any more since yesterday.",
        "My user name is spelled wrong.",
        "Somebody else signed in to my account.",
        "Please remove me from your newsletter.",
        "The code for signing in never reaches my phone.",
        "I moved house, how do I change the address in my profile?",
        "Can two people use one login?",
    ),
    "sales": (
        "How much is the {product} if we take fifty?",
        "Is the {product} available in green?",
        "Which {product} would you recommend for a small office?",
        "Do students get a discount on the {product}?",
        "When will the new {product} come out?",
        "We would like an offer for twenty units of the {product}.",
        "What is the difference between the two models of the {product}?",
        "Is the {product} in stock?",
        "Could someone show us the {product} before we buy it?",
        "Do you sell spare parts for the {product} as well?",
    ),
    "greetings": ("", "Hello, ", "Hi there, ", "Good morning, ", "Dear team, ", "Excuse me, ", "Hi, ", "Good day, "),
    "endings": ("", " Thanks!", " Please help.", " Kind regards", " Thank you.", " I am waiting."),
    "kinds": (
        "wireless", "red", "small", "electric", "steel", "digital", "portable", "kitchen", "wooden",
        "office", "garden", "leather", "travel", "kids", "smart", "folding", "glass", "white", "gaming",
        "outdoor", "professional", "mini", "cotton", "golden", "heavy", "vintage",
    ),
    "products": (
        "printer", "camera", "lamp", "laptop", "phone", "keyboard", "monitor", "desk", "chair", "radio",
        "watch", "speaker", "tablet", "drone", "blender", "toaster", "heater", "router", "kettle", "mixer",
        "scanner", "headset", "bag", "jacket", "mirror", "bike", "helmet", "knife", "clock", "pillow",
        "blanket", "wallet", "fan", "grill", "carpet", "shelf",
    ),
}  # fmt: skip
TEST = {
    "billing": (
        "You took the money for the {product} two times.",
        "There is a mistake in the invoice for my {product}.",
        "I paid for the {product} but never got a receipt.",
        "Which payment methods do you accept?",
    ),
    "shipping": (
        "My {product} still has not been delivered.",
        "The tracking page says that the {product} was delivered, but it is not here.",
        "When will the parcel with my {product} arrive?",
        "Can the courier bring the {product} on Saturday?",
    ),
    "returns": (
        "I do not like the {product} and want to return it.",
        "The {product} came broken, how can I send it back?",
        "What do I have to do to exchange the {product}?",
        "I returned the {product} two weeks ago and still have no refund.",
    ),
    "support": (
        "The {product} stopped working and shows a red light.",
        "How can I update the software of the {product}?",
        "My {product} freezes all the time.",
        "The {product} cannot be connected to my computer.",
    ),
    "account": (
        "My password is not accepted when I log in.",
        "I would like to close my account.",
        "How can I change the phone number in my profile?",
        "My account was locked after I signed in.",
    ),
    "sales": (
        "What would a hundred pieces of the {product} cost?",
        "Do you have the {product} in a smaller model?",
        "Can you recommend a {product} for beginners?",
        "Is there a discount if we order the {product} for a school?",
    ),
    "greetings": ("Hey, ", "Good evening, ", "Sorry to bother you, ", "To whom it may concern: ", "Hello everyone, "),
    "endings": (" See you.", " Many thanks in advance.", " Looking forward to your answer.", " Bye"),
    "kinds": (
        "solar", "blue", "plastic", "studio", "camping", "silver", "black", "giant", "silent", "garage",
    ),
    "products": (
        "microscope", "guitar", "freezer", "telescope", "projector", "scooter", "tent", "piano", "drill",
        "table", "ladder", "umbrella", "curtain", "flute",
    ),
}  # fmt: skip

DEPARTMENTS = ("billing", "shipping", "returns", "support", "account", "sales")


def joined(greeting: str, sentence: str) -> str:
    """The sentence after the greeting, going on in lower case."""
    if greeting and not sentence.startswith("I "):
        sentence = sentence[0].lower() + sentence[1:]
    return greeting + sentence


def rows(parts: dict[str, tuple[str, ...]], each: int, rng: random.Random) -> list[dict[str, str]]:
    """`each` distinct rows of every department, mixed."""
    made: dict[str, str] = {}
    for department in DEPARTMENTS:
        wanted = len(made) + each
        while len(made) < wanted:
            sentence, product = rng.choice(parts[department]), rng.choice(parts["products"])
            if rng.random() < 0.6:
                product = f"{rng.choice(parts['kinds'])} {product}"
            message = joined(rng.choice(parts["greetings"]), sentence.format(product=product)) + rng.choice(
                parts["endings"]
            )
            made[message] = f"{department} | {product if '{product}' in sentence else 'none'}"
    mixed = list(made.items())
    rng.shuffle(mixed)
    return [{"input": message, "output": output} for message, output in mixed]


def make() -> dict[str, list[dict[str, str]]]:
    """The rows of both splits."""
    rng = random.Random(6)
    return {"train": rows(TRAIN, 200, rng), "test": rows(TEST, 50, rng)}


def main() -> None:
    for split, made in make().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        Path(__file__).with_name(f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
