"""What this machine has, of all that the stages need: packages, processor, devices, memory, disks, ffmpeg, weights."""
