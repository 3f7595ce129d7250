"""A part: read-only pages to look at, over the same units, grants and stores as the API."""
