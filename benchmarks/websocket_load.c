/* The inner loop of benchmarks/websocket_load.py: fast enough that the server is what is measured. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* One connection's place in what the server sends. */
struct place {
    unsigned char head[4]; /* of a frame, while it is not whole */
    int has;
    size_t left;  /* payload bytes of the current frame still to come */
    size_t loose; /* payload bytes of an answer that is not whole yet */
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Write `count` messages, each by a write of its own, or all by one. */
static int put(int fd, const char *messages, size_t size, int count, int joined) {
    if (joined)
        return send(fd, messages, size * count, MSG_NOSIGNAL) == (ssize_t)(size * count);
    while (count--)
        if (send(fd, messages, size, MSG_NOSIGNAL) != (ssize_t)size)
            return 0;
    return 1;
}

/* The answers that are whole with these bytes: an answer is `answer` bytes of payload, over any frames (under 64 KiB). */
static int count(struct place *place, const unsigned char *at, size_t size, size_t answer) {
    size_t take;
    while (size) {
        if (place->left) {
            take = place->left < size ? place->left : size;
            place->left -= take;
            place->loose += take;
        } else {
            place->head[place->has++] = *at;
            take = 1;
            if (place->has >= 2 && (place->head[1] != 126 || place->has == 4)) {
                place->left = place->head[1] != 126 ? place->head[1] : (place->head[2] << 8 | place->head[3]);
                place->has = 0;
            }
        }
        at += take;
        size -= take;
    }
    int whole = place->loose / answer;
    place->loose %= answer;
    return whole;
}

/* Put `window` messages in flight on each connection. 0 when a write failed. */
int fill(const int *fds, int connections, const char *messages, size_t size, int window, int joined) {
    for (int i = 0; i < connections; i++)
        if (!put(fds[i], messages, size, window, joined))
            return 0;
    return 1;
}

size_t place_size(void) { return sizeof(struct place); }

/* For `seconds`, answer each answer with another message. Returns the number of answers, or -1 when the server
   closed or a write failed. */
long drive(const int *fds, int connections, const char *messages, size_t size, size_t answer, int joined, double seconds,
           struct place *places) {
    static unsigned char incoming[1 << 18];
    struct epoll_event event, events[256];
    double end = now() + seconds;
    long answers = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < connections; i++) {
        event.events = EPOLLIN;
        event.data.u32 = i;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event) < 0)
            return -1;
    }
    while (now() < end) {
        int ready = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            int at = events[i].data.u32;
            ssize_t got = recv(fds[at], incoming, sizeof incoming, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN)
                continue;
            if (got <= 0)
                return -1;
            int whole = count(&places[at], incoming, got, answer);
            answers += whole;
            if (whole && !put(fds[at], messages, size, whole, joined))
                return -1;
        }
    }
    close(epoll);
    return answers;
}
