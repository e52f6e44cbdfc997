"""How the tiny model and the toy backbone that come with the package were made."""
