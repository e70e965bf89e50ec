/* A monotonic clock that goes slowly, for a process that is slowed down itself: LD_PRELOAD=slow_clock.so
 *
 * Behind callgrind a process needs some fifty times as long for its work, so its timers would tick fifty times as often
 * for each message, and chance would decide how many of these ticks fall into a measurement. Once the file that
 * SLOW_CLOCK names exists, the main thread's monotonic clock goes SLOWNESS times slower: a loop's timers keep their
 * place among the work. Other threads keep the true clock, since they hand its times to the kernel.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOWNESS = 50, NS = 1000000000 };

static struct {
    int slow;
    long long since;
} clocks[CLOCK_MONOTONIC_COARSE + 1];

int clock_gettime(clockid_t which, struct timespec *at) {
    long failed = syscall(SYS_clock_gettime, which, at);
    if (failed || (which != CLOCK_MONOTONIC && which != CLOCK_MONOTONIC_COARSE) || gettid() != getpid()) return (int)failed;
    long long now = at->tv_sec * (long long)NS + at->tv_nsec;
    if (!clocks[which].slow) {
        const char *begins = getenv("SLOW_CLOCK");
        if (!begins || access(begins, F_OK)) return 0;
        clocks[which].slow = 1;
        clocks[which].since = now;
    }
    now = clocks[which].since + (now - clocks[which].since) / SLOWNESS;
    at->tv_sec = now / NS;
    at->tv_nsec = now % NS;
    return 0;
}
