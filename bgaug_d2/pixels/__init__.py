"""Images and masks as arrays: reading, encoding, run lengths, polygons, masks."""
