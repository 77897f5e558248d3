"""What a command would take: how much there is to do, bytes, time and memory, by a few seconds of real work."""
