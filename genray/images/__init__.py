"""Images: decoded, encoded, measured, damaged."""
