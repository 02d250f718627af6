"""What a process of a test took of memory, as the kernel counts it (Linux)."""

# A child's `ru_maxrss` starts at its parent's where it was started by vfork, so the kernel's own count is read.
PEAK = """
def peak_megabytes():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024
"""
"""Source of `peak_megabytes()`, the most that the process that runs it has held so far."""
