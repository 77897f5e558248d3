"""Images and clips as uint8 RGB arrays, and back; nothing here imports torch."""
