"""Prices: what each model costs, in micros per one million tokens."""
