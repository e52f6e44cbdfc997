"""Painting processes: their queue, their supervision, and the clients that ask for pictures."""
