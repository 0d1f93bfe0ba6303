"""What the model is asked to say about one ticket."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, Field


class Product(StrEnum):
    HUB = "hub"
    LAMP = "lamp"
    SENSOR = "sensor"
    DOORBELL = "doorbell"
    APP = "app"
    CARE = "care"
    ORDER = "order"
    OTHER = "other"


class Urgency(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


class Mood(StrEnum):
    ANGRY = "angry"
    NEUTRAL = "neutral"
    HAPPY = "happy"


class Sentiment(BaseModel):
    mood: Mood
    confidence: float = Field(description="0 to 1")


class Entity(BaseModel):
    kind: str = Field(description="order, version, error or room")
    text: str


class TicketTriage(BaseModel):
    """One ticket, sorted for the people who answer it."""

    product: Product
    urgency: Urgency
    sentiment: Sentiment
    summary: str = Field(description="One sentence of at most 120 characters")
    language: str = Field(description="ISO 639-1 code of the ticket's language")
    refund_eur: float | None = Field(description="Amount the customer wants back, if any")
    entities: list[Entity]
