/* The inner loop of benchmarks/echo_load.py: fast enough that the server is what is measured. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Write `count` frames, each by a write of its own, or all by one. */
static int put(int fd, const char *frames, size_t size, int count, int joined) {
    if (joined)
        return send(fd, frames, size * count, MSG_NOSIGNAL) == (ssize_t)(size * count);
    while (count--)
        if (send(fd, frames, size, MSG_NOSIGNAL) != (ssize_t)size)
            return 0;
    return 1;
}

/* Put `window` frames in flight on each connection. 0 when a write failed. */
int fill(const int *fds, int connections, const char *frames, size_t size, int window, int joined) {
    for (int i = 0; i < connections; i++)
        if (!put(fds[i], frames, size, window, joined))
            return 0;
    return 1;
}

/* For `seconds`, answer each answer with another frame. `loose` keeps the bytes of answers that are not whole yet.
   Returns the number of answers; -1 - n when the server closed connection n, -1000000 - n when it takes no more. */
long drive(const int *fds, int connections, const char *frames, size_t size, int joined, double seconds, size_t *loose) {
    static char incoming[1 << 18];
    struct epoll_event event, events[256];
    double end = now() + seconds;
    long answers = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < connections; i++) {
        event.events = EPOLLIN;
        event.data.u32 = i;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event) < 0)
            return 0;
    }
    while (now() < end) {
        int ready = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            int at = events[i].data.u32;
            ssize_t got = recv(fds[at], incoming, sizeof incoming, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN)
                continue;
            if (got <= 0)
                return -1 - at;
            loose[at] += got;
            int whole = loose[at] / size;
            loose[at] %= size;
            answers += whole;
            if (whole && !put(fds[at], frames, size, whole, joined))
                return -1000000 - at;
        }
    }
    close(epoll);
    return answers;
}
