"""Rules that stand in for the model: the sandbox asks them what to answer, and gets the same answer every time."""

from __future__ import annotations

import re
from collections.abc import Iterator

from batchor_engine.sandbox import SandboxAnswer, SandboxRequest
from example_project.models import Entity, Mood, Product, Sentiment, TicketTriage, Urgency

PRODUCT_WORDS = {
    Product.DOORBELL: r"doorbell|chime|türklingel|جرس",
    Product.CARE: r"\bcare\b|subscription|invoice|refund|charged|voucher|rembours",
    Product.SENSOR: r"sensor",
    Product.APP: r"\bapp\b|password|dark mode|scenes",
    Product.HUB: r"\bhub\b|firmware|router",
    Product.LAMP: r"lamp|flicker|brightness|ランプ",
    Product.ORDER: r"parcel|order|shipping|delivered|tracking",
}
CRITICAL = r"burn|smell|fire|🔥|stranger|hacked|authority"
HIGH = r"urgent|third message|charged twice|double|all \d+ lamps|asap|schnell|now!|offline|broken"
LOW = r"no hurry|wish|please could|could the app|thank you|compliment|compatible|before i buy|wonderful"
ANGRY = r"disappointed|third message|useless|defective|bank|authority|woke|not the money|old quickly|in circles"
HAPPY = r"thank you to|wonderful|very happy|lovely|patient|great|keep it up"
ENTITIES = {
    "order": r"\bFL-\d{5}\b",
    "error": r"\bE-\d+\b",
    "version": r"\b\d\.\d\.\d\b",
    "room": r"\b(?:kitchen|hall|bedroom|nursery|office|living room|bathroom|garage|stairwell|attic)\b",
}
LANGUAGES = {
    "ja": r"[\u3040-\u30ff]",
    "ar": r"[\u0600-\u06ff]",
    "de": r"\b(?:guten tag|bitte|bestellung)\b",
    "fr": r"\b(?:bonjour|je vous|cordialement)\b",
}
GREETING = r"^(?:hello again|hello|hi fernlight team|hi|good morning|dear support|to whom it may concern),?\s+"
BODY_MARK = "Body:\n"


def respond(request: SandboxRequest) -> SandboxAnswer:
    """Refuse a ticket without a body, answer every other one by the rules."""
    subject, _, body = request.prompt.partition(BODY_MARK)
    if not body.strip():
        return SandboxAnswer(refusal="There is no text in this ticket to judge.")
    return SandboxAnswer(text=triage(subject.removeprefix("Subject: ").strip(), body.strip()).model_dump_json())


def triage(subject: str, body: str) -> TicketTriage:
    text = f"{subject}\n{body}"
    return TicketTriage(
        product=product_of(subject) or product_of(body) or Product.OTHER,
        urgency=urgency_of(text),
        sentiment=sentiment_of(text),
        summary=summary_of(body),
        language=next((code for code, words in LANGUAGES.items() if found(words, text)), "en"),
        refund_eur=refund_of(text),
        entities=list(entities_of(text)),
    )


def product_of(text: str) -> Product | None:
    return next((product for product, words in PRODUCT_WORDS.items() if found(words, text)), None)


def found(words: str, text: str) -> bool:
    return re.search(words, text, re.IGNORECASE) is not None


def urgency_of(text: str) -> Urgency:
    if found(CRITICAL, text):
        return Urgency.CRITICAL
    if found(HIGH, text):
        return Urgency.HIGH
    return Urgency.LOW if found(LOW, text) else Urgency.NORMAL


def sentiment_of(text: str) -> Sentiment:
    angry = len(re.findall(ANGRY, text, re.IGNORECASE)) + (2 if found(CRITICAL, text) else 0)
    happy = len(re.findall(HAPPY, text, re.IGNORECASE))
    mood = Mood.ANGRY if angry > happy else Mood.HAPPY if happy > angry else Mood.NEUTRAL
    return Sentiment(mood=mood, confidence=round(min(0.99, 0.6 + 0.12 * abs(angry - happy)), 2))


def summary_of(body: str) -> str:
    """The first sentence that says something, greeting left out."""
    text = re.sub(GREETING, "", " ".join(body.split()), flags=re.IGNORECASE)
    sentences = re.split(r"(?<=[.!?])\s+|(?<=。)", text)
    return next((one for one in sentences if len(one) > 25), text)[:120]


def refund_of(text: str) -> float | None:
    wanted = found(r"refund|charged twice|rembours", text)
    amount = re.search(r"(\d+)[.,](\d\d) EUR", text)
    return float(f"{amount[1]}.{amount[2]}") if wanted and amount else None


def entities_of(text: str) -> Iterator[Entity]:
    for kind, pattern in ENTITIES.items():
        for hit in dict.fromkeys(re.findall(pattern, text)):
            yield Entity(kind=kind, text=hit)
