"""One patient's stream: ordered, judged, scored."""
