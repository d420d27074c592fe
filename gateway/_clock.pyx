# cython: language_level=3
"""Monotonic seconds in one C call. Knows nothing else."""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef class MonotonicClock:
    """`offset` plus the seconds of CLOCK_MONOTONIC, which is what time.perf_counter reads on Linux."""

    cdef readonly double offset

    def __init__(self, double offset=0.0):
        self.offset = offset

    def __call__(self):
        cdef timespec time
        clock_gettime(CLOCK_MONOTONIC, &time)
        return self.offset + time.tv_sec + time.tv_nsec * 1e-9
