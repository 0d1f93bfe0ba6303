"""Adapters to batch APIs. Nothing here decides what happens to an item; it only says what the provider said."""
