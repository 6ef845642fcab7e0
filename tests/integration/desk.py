"""A help desk: what people ask it in many words, and the one answer that each topic has."""

from __future__ import annotations

import random

TOPICS = {
    "reset my password": "Choose 'Forgot password' at the login and follow the link in the mail.",
    "cancel my subscription": "Open Settings, then Plan, and press Cancel; it runs until the end of the month.",
    "change my delivery address": "Under Orders choose the parcel and edit where it goes before it is packed.",
    "download my invoice": "Every bill lies as a PDF under Billing, newest on top.",
    "talk to a human agent": "Write 'agent' in the chat, or call the number on the back of the card.",
    "return a damaged item": "Print the label from the Returns page and hand the box to any courier.",
    "track my parcel": "The link in the shipping mail shows where it is on the map.",
    "add a second user": "An owner invites colleagues from the Team page by their mail address.",
    "export my data": "Ask for an archive under Privacy; a mail comes when it is ready.",
    "turn on dark mode": "Tap the moon in the upper corner, or follow the system's setting.",
    "redeem a voucher": "Type the code at the checkout, above the total.",
    "update my credit card": "Under Billing remove the old one and enter the new one; it is checked at once.",
}
WORDS = (
    "How do I {}?", "How can I {}?", "Please tell me how to {}.", "What is the way to {}?", "I would like to {}, how?",
    "Could you explain how to {}?", "What do I have to do to {}?", "I need help to {}", "Can you help me {}?",
    "Tell me the steps to {}", "hello, how would one {} here", "Is there a way to {}?", "I want to {}",
    "how to {}", "Show me how to {} please", "Where can I {}?",
)  # fmt: skip


def questions(seed: int = 0) -> list[tuple[str, str]]:
    """Return every topic in all words, as (question, answer), in an order that *seed* says."""
    found = [(words.format(topic), said) for topic, said in TOPICS.items() for words in WORDS]
    random.Random(seed).shuffle(found)
    return found


def answer_to(question: str) -> str | None:
    """Return what the desk says to *question*; None when it is about no topic."""
    return next((said for topic, said in TOPICS.items() if topic in question), None)
