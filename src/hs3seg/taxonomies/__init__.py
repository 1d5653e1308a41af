"""Label sets of well-known data: their ids, classes and colours, and maps from one to another. No torch."""
