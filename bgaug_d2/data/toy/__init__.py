"""The built-in toy world: procedural images, annotations and backgrounds."""
