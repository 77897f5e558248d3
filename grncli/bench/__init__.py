"""What this machine does: the speed of every stage, beside the machine's own limits measured at the same moment."""
