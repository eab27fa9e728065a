"""How every peer is timed: as `vlm bench` times itself."""

import json
import resource
import statistics
import time


def peak_mb():
    """The most memory held since the last `forget_peak`, in MB."""
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def forget_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # the peak then counts from the start of the process


def measure(work, warmup, repeat):
    """Times on the clock in ms, and the mean processor time of a repetition, all threads together."""
    for _ in range(warmup):
        work()
    forget_peak()
    times = []
    processor = time.process_time()
    for _ in range(repeat):
        begun = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begun))
    return times, 1e3 * (time.process_time() - processor) / max(repeat, 1)


def report(measured, version, **more):
    times, processor = measured
    print(json.dumps({"median_ms": round(statistics.median(times), 2), "min_ms": round(min(times), 2),
                      "cpu_ms": round(processor, 2), "peak_mb": peak_mb(), "version": version} | more), flush=True)
