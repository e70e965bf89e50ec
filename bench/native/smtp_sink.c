/* The cheap SMTP sink: takes mail, counts it, keeps nothing. One thread, epoll.
 *
 *   smtp_sink host port counter-file
 *
 * `counter-file` is mapped, and its first eight octets are the number of messages taken, in the machine's order: who
 * waits for the last message reads a number and parses nothing. Says 250 to whatever is a command, and offers
 * PIPELINING, 8BITMIME, SIZE and SMTPUTF8. It ends when it is told to (TERM).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_OCTETS = 65536, LINE_OCTETS = 2048, REPLY_OCTETS = 16384 };
static const char hello[] =
    "250-sink.bench.example\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n";

struct session {
    int fd;
    int in_data;
    int matched; /* octets of "\r\n.\r\n" seen at the end of the last read */
    int held;
    char line[LINE_OCTETS];
};

static uint64_t *count;
static char input[READ_OCTETS], reply[REPLY_OCTETS];
static size_t replied;

static void say(const char *text, size_t size) {
    if (replied + size > sizeof reply) return; /* a client that pipelines this much gets no further answers */
    memcpy(reply + replied, text, size);
    replied += size;
}

static int is(const char *line, const char *verb) { return strncasecmp(line, verb, 4) == 0; }

/* Whether the session goes on. */
static int take_line(struct session *s, const char *line) {
    if (is(line, "EHLO") || is(line, "LHLO")) say(hello, sizeof hello - 1);
    else if (is(line, "DATA")) {
        say("354 go on\r\n", 11);
        s->in_data = 1;
        s->matched = 2; /* an empty message is a dot at once */
    } else if (is(line, "QUIT")) {
        say("221 bye\r\n", 9);
        return 0;
    } else say("250 2.0.0 ok\r\n", 14);
    return 1;
}

/* Gives how many of the octets belong to the message, its end included. */
static size_t take_data(struct session *s, const char *p, size_t size) {
    static const char end[] = "\r\n.\r\n";
    size_t i = 0;
    while (i < size) {
        if (s->matched == 0) {
            const char *cr = memchr(p + i, '\r', size - i);
            if (!cr) return size;
            i = cr - p;
        }
        if (p[i] == end[s->matched]) {
            s->matched++;
            i++;
            if (s->matched == 5) {
                s->in_data = s->matched = 0;
                (*count)++;
                say("250 2.0.0 taken\r\n", 17);
                return i;
            }
        } else if (s->matched) s->matched = 0;
        else i++;
    }
    return size;
}

static int readable(struct session *s) {
    ssize_t n = recv(s->fd, input, sizeof input, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 1;
    if (n <= 0) return 0;
    size_t at = 0;
    int going = 1;
    replied = 0;
    while (going && at < (size_t)n) {
        if (s->in_data) {
            at += take_data(s, input + at, n - at);
            continue;
        }
        char *lf = memchr(input + at, '\n', n - at);
        size_t size = lf ? (size_t)(lf - (input + at)) + 1 : n - at;
        if (s->held + size >= sizeof s->line) return 0;
        memcpy(s->line + s->held, input + at, size);
        s->held += size;
        at += size;
        if (lf) {
            s->line[s->held] = 0;
            s->held = 0;
            going = take_line(s, s->line);
        }
    }
    if (replied && send(s->fd, reply, replied, MSG_NOSIGNAL) != (ssize_t)replied) return 0;
    return going;
}

int main(int argc, char **argv) {
    struct sockaddr_in here = {.sin_family = AF_INET};
    int on = 1;
    if (argc != 4 || inet_pton(AF_INET, argv[1], &here.sin_addr) != 1) {
        fprintf(stderr, "usage: smtp_sink 127.0.0.1 port counter-file\n");
        return 64;
    }
    here.sin_port = htons(atoi(argv[2]));
    int file = open(argv[3], O_RDWR | O_CREAT, 0644);
    if (file < 0 || ftruncate(file, 8) < 0) return perror(argv[3]), 73;
    count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 1024) < 0) return perror("bind"), 71;
    int poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct session *s = events[i].data.ptr;
            if (!s) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    s = calloc(1, sizeof *s);
                    s->fd = fd;
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    send(fd, "220 sink.bench.example ESMTP\r\n", 30, MSG_NOSIGNAL);
                    event.data.ptr = s;
                    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
                }
            } else if (!readable(s)) {
                close(s->fd);
                free(s);
            }
        }
    }
}
