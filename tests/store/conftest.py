import sys
from pathlib import Path

# Test modules are imported by path; their shared small_stores.py, and processes they start, need a folder to look in.
sys.path.append(str(Path(__file__).parent))

from store_fixtures import instant_disk, memory_disk, small_chunks

__all__ = ["instant_disk", "memory_disk", "small_chunks"]
