/* A stub model server for benchmarks/overhead.py: one thread, epoll, deterministic times, no dependency.
 *
 *   cc -O2 -o stub stub.c && ./stub PORT
 *
 * It answers every request on 127.0.0.1:PORT; the first element of the path says how:
 *
 *   /delay-MS/...                         one whole chat completion, MS milliseconds after the request is complete
 *   /stream-FIRST_US-GAP_US-COUNT-SIZE/...  an SSE stream of COUNT chunks of SIZE content bytes: the first chunk FIRST_US
 *                                         microseconds after the request, each next one GAP_US later. GAP_US 0 writes
 *                                         as fast as the reader takes it. COUNT includes the role chunk at the start
 *                                         and the finish chunk at the end; a usage chunk follows if the request holds
 *                                         the word include_usage, then [DONE].
 *   /stats                                requests and chunks served so far, as JSON
 *
 * Every chunk is a write of its own (TCP_NODELAY). A reader that does not read is waited for: nothing piles up here.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { IN_BYTES = 65536, OUT_BYTES = 8192, MAX_FDS = 65536, MAX_SIZE = 4096 };

typedef struct {
    int fd;
    size_t in_len;
    char in[IN_BYTES];
    char out[OUT_BYTES]; /* one chunk at most: the part that the socket would not take yet */
    size_t out_len, out_off;
    int streaming, usage;
    long sent, count, size;   /* chunks written and to write, content bytes in each */
    uint64_t due, gap;        /* ns; due 0: nothing is planned */
    int heap_at;              /* place in the timer heap, -1 if none */
} Conn;

static Conn *conns[MAX_FDS], *heap[MAX_FDS];
static int heap_len, epfd, timer_fd;
static uint64_t n_requests, n_chunks;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* The timer heap: the connection that is due first is heap[0]. */
static void heap_put(int i, Conn *c) { heap[i] = c; c->heap_at = i; }

static void heap_up(int i) {
    Conn *c = heap[i];
    for (; i > 0 && heap[(i - 1) / 2]->due > c->due; i = (i - 1) / 2) heap_put(i, heap[(i - 1) / 2]);
    heap_put(i, c);
}

static void heap_down(int i) {
    Conn *c = heap[i];
    for (int k; (k = 2 * i + 1) < heap_len; i = k) {
        if (k + 1 < heap_len && heap[k + 1]->due < heap[k]->due) k++;
        if (heap[k]->due >= c->due) break;
        heap_put(i, heap[k]);
    }
    heap_put(i, c);
}

static void heap_remove(Conn *c) {
    int i = c->heap_at;
    if (i < 0) return;
    c->heap_at = -1;
    if (i == --heap_len) return;
    heap_put(i, heap[heap_len]);
    heap_up(i);
    heap_down(i);
}

static void plan(Conn *c, uint64_t due) {
    heap_remove(c);
    c->due = due;
    heap_put(heap_len, c);
    heap_up(heap_len++);
}

static void drop(Conn *c) {
    heap_remove(c);
    close(c->fd);
    conns[c->fd] = NULL;
    free(c);
}

static void watch(Conn *c, uint32_t events) {
    struct epoll_event e = {.events = events | EPOLLRDHUP, .data.fd = c->fd};
    epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &e);
}

/* Write what is in c->out. 1: all gone, 0: the socket is full (we are told when it is not), -1: dropped. */
static int flush_out(Conn *c) {
    while (c->out_off < c->out_len) {
        ssize_t n = write(c->fd, c->out + c->out_off, c->out_len - c->out_off);
        if (n > 0) { c->out_off += (size_t)n; continue; }
        if (n < 0 && errno == EAGAIN) { watch(c, EPOLLIN | EPOLLOUT); return 0; }
        drop(c);
        return -1;
    }
    c->out_len = c->out_off = 0;
    return 1;
}

static void put_whole(Conn *c, const char *body) {
    c->out_len = (size_t)snprintf(c->out, OUT_BYTES,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    c->out_off = 0;
}

static const char WHOLE[] =
    "{\"id\":\"chatcmpl-stub\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{\"index\":0,"
    "\"message\":{\"role\":\"assistant\",\"content\":\"The parcel left the depot this morning and should arrive tomorrow "
    "before noon. You can follow it with the number in your confirmation mail.\"},\"logprobs\":null,\"finish_reason\":"
    "\"stop\"}],\"usage\":{\"prompt_tokens\":42,\"completion_tokens\":31,\"total_tokens\":73},\"system_fingerprint\":\"fp_stub\"}";

/* One SSE event as one HTTP chunk. */
static void put_event(Conn *c, const char *data) {
    size_t n = strlen(data) + 8; /* "data: " and two line ends */
    c->out_len += (size_t)snprintf(c->out + c->out_len, OUT_BYTES - c->out_len, "%zx\r\ndata: %s\n\n\r\n", n, data);
}

static void put_chunk(Conn *c) {
    static const char HEAD[] = "{\"id\":\"chatcmpl-stub\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                               "\"model\":\"m\",\"system_fingerprint\":\"fp_stub\",";
    char data[OUT_BYTES - 512], text[MAX_SIZE + 1];
    c->out_len = c->out_off = 0;
    memset(text, 'x', (size_t)c->size);
    text[0] = ' ';
    text[c->size] = 0;
    if (c->sent == 0) {
        c->out_len = (size_t)snprintf(c->out, OUT_BYTES,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n");
        snprintf(data, sizeof data, "%s\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                                    "\"logprobs\":null,\"finish_reason\":null}]}", HEAD);
    } else if (c->sent < c->count - 1) {
        snprintf(data, sizeof data, "%s\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,"
                                    "\"finish_reason\":null}]}", HEAD, text);
    } else {
        snprintf(data, sizeof data, "%s\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,"
                                    "\"finish_reason\":\"stop\"}]}", HEAD);
    }
    put_event(c, data);
    n_chunks++;
    if (++c->sent < c->count) return;
    if (c->usage) {
        snprintf(data, sizeof data, "%s\"choices\":[],\"usage\":{\"prompt_tokens\":42,\"completion_tokens\":%ld,"
                                    "\"total_tokens\":%ld}}", HEAD, c->count, c->count + 42);
        put_event(c, data);
    }
    put_event(c, "[DONE]");
    c->out_len += (size_t)snprintf(c->out + c->out_len, OUT_BYTES - c->out_len, "0\r\n\r\n");
}

/* Send what is due now, then plan the rest. An unpaced stream takes turns: 64 chunks, then the others. */
static void serve(Conn *c) {
    for (int turn = 0;; turn++) {
        if (!c->streaming) put_whole(c, WHOLE); else put_chunk(c);
        int last = !c->streaming || c->sent >= c->count;
        if (last) c->streaming = 0;
        if (flush_out(c) <= 0 || last) return;
        if (c->gap || turn >= 63) { plan(c, c->gap ? c->due + c->gap : now_ns()); return; }
    }
}

static void begin(Conn *c, const char *path, const char *body) {
    long first = 0, gap = 0;
    n_requests++;
    c->count = 0, c->sent = 0, c->size = 4;
    if (sscanf(path, "/stream-%ld-%ld-%ld-%ld/", &first, &gap, &c->count, &c->size) == 4 && c->count >= 2) {
        if (c->size < 1 || c->size > MAX_SIZE) c->size = 4;
        c->streaming = 1;
        c->usage = strstr(body, "include_usage") != NULL;
        c->gap = (uint64_t)gap * 1000;
        plan(c, now_ns() + (uint64_t)first * 1000);
    } else if (sscanf(path, "/delay-%ld/", &first) == 1) {
        plan(c, now_ns() + (uint64_t)first * 1000000);
    } else {
        char stats[128];
        snprintf(stats, sizeof stats, "{\"requests\":%lu,\"chunks\":%lu}", (unsigned long)n_requests - 1, (unsigned long)n_chunks);
        n_requests--;
        put_whole(c, stats);
        flush_out(c);
    }
}

/* Take whole requests off the buffer. Only Content-Length bodies: every client here sends them. -1: dropped. */
static int take_requests(Conn *c) {
    for (;;) {
        c->in[c->in_len] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end) return 0;
        size_t length = 0, head = (size_t)(end - c->in) + 4;
        for (char *line = strstr(c->in, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n"))
            if (!strncasecmp(line + 2, "content-length:", 15)) length = strtoul(line + 17, NULL, 10);
        if (head + length >= IN_BYTES) { drop(c); return -1; }
        if (c->in_len < head + length) return 0;
        char path[256] = "";
        sscanf(c->in, "%*15s %255s", path);
        char keep = c->in[head + length];
        c->in[head + length] = 0;
        int fd = c->fd;
        begin(c, path, c->in + head);
        if (conns[fd] != c) return -1;
        c->in[head + length] = keep;
        c->in_len -= head + length;
        memmove(c->in, c->in + head + length, c->in_len);
    }
}

static void on_readable(Conn *c) {
    ssize_t n = read(c->fd, c->in + c->in_len, IN_BYTES - 1 - c->in_len);
    if (n > 0) { c->in_len += (size_t)n; take_requests(c); return; }
    if (n < 0 && errno == EAGAIN) return;
    drop(c);
}

static void on_writable(Conn *c) {
    if (flush_out(c) <= 0) return;
    watch(c, EPOLLIN);
    if (c->streaming) plan(c, c->gap ? c->due + c->gap : now_ns());
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        int on = 1;
        Conn *c = fd < MAX_FDS ? calloc(1, sizeof *c) : NULL;
        if (!c) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        c->fd = fd;
        c->heap_at = -1;
        conns[fd] = c;
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void arm_timer(void) {
    struct itimerspec t = {{0, 0}, {0, 0}};
    if (heap_len) {
        uint64_t due = heap[0]->due ? heap[0]->due : 1;
        t.it_value.tv_sec = (time_t)(due / 1000000000ull);
        t.it_value.tv_nsec = (long)(due % 1000000000ull);
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

static void serve_due(void) {
    uint64_t now = now_ns();
    while (heap_len && heap[0]->due <= now) {
        Conn *c = heap[0];
        heap_remove(c);
        serve(c);
    }
}

static int listen_on(int port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) { perror("stub: listen"); exit(1); }
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) { fprintf(stderr, "usage: stub PORT\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(atoi(argv[1]));
    epfd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, t = {.events = EPOLLIN, .data.fd = timer_fd};
    epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &e);
    epoll_ctl(epfd, EPOLL_CTL_ADD, timer_fd, &t);
    for (struct epoll_event events[256];;) {
        arm_timer();
        int n = epoll_wait(epfd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            uint64_t ticks;
            if (fd == listener) { accept_all(listener); continue; }
            if (fd == timer_fd) { (void)!read(timer_fd, &ticks, sizeof ticks); continue; }
            if (conns[fd] && events[i].events & EPOLLOUT) on_writable(conns[fd]);
            if (conns[fd] && events[i].events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) drop(conns[fd]);
            else if (conns[fd] && events[i].events & EPOLLIN) on_readable(conns[fd]);
        }
        serve_due();
    }
}
