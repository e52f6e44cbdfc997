"""What decides the pixels of one picture, and the cache key that follows from it."""
