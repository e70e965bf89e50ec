/* The cheap SMTP load generator: one thread, epoll, no allocation a message.
 *
 *   smtp_load [-p] [-o] [-s sessions] [-m messages] [-l octets] [-f sender] [-t recipient] [-d domains]
 *             [-i file] host port
 *
 *   -p  pipelined: MAIL, RCPT and DATA in one segment; else each command waits for its reply (lockstep)
 *   -o  one message a connection, each with its own EHLO and QUIT
 *   -d  the recipient's domain gets "d0.", "d1." ... before it, so many of them in turn; not with -p
 *   -i  the message is this file's, whose lines end in CRLF and do not begin with a dot; -l is not looked at
 *
 * A client stops at the final dot until its reply has come, so every peer can be driven alike. Each reply's code is
 * checked; any other than the expected one ends the run with status 1 and the line on standard error. Prints one line
 * of JSON: messages, seconds, cpu_seconds (of this program, so that the reader knows what the load itself cost).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum step { GREETING, HELLO, MAIL, RCPT, DATA, BODY, QUIT, STEPS };
enum { READ_OCTETS = 4096, RCPT_OCTETS = 128, STALL_S = 60, MOST_OCTETS = 1 << 20 };  /* the last: of a message from a file */

struct session {
    int fd;
    enum step step;      /* the reply that is awaited */
    int held;            /* octets of an unfinished reply line */
    long number;         /* of its message */
    char line[READ_OCTETS];
    const char *out;     /* what the socket has not yet taken */
    size_t left;
};

static const char *const expected[STEPS] = {"220", "250", "250", "250", "354", "250", "221"};
static struct sockaddr_in peer;
static int poller, pipelined, one_each;
static long wanted = 1000, started, finished, domains;
static char (*recipients)[RCPT_OCTETS];  /* RCPT commands, one a domain */
static char *command[STEPS];    /* what is sent once the reply before it has come */
static size_t command_size[STEPS];
static char *envelope;
static size_t envelope_size;

static void fail(const char *what, const char *detail) {
    fprintf(stderr, "smtp_load: %s: %s\n", what, detail);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void watch(struct session *s, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(poller, operation, s->fd, &event) < 0) fail("epoll_ctl", strerror(errno));
}

static void push(struct session *s) {
    while (s->left) {
        ssize_t n = send(s->fd, s->out, s->left, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) fail("send", strerror(errno));
            watch(s, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        s->out += n;
        s->left -= n;
    }
}

static void say(struct session *s, const char *text, size_t size) {
    s->out = text;
    s->left = size;
    push(s);
}

static void open_session(struct session *s) {
    int on = 1;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0) fail("socket", strerror(errno));
    if (connect(s->fd, (struct sockaddr *)&peer, sizeof peer) < 0) fail("connect", strerror(errno));
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    s->step = GREETING;
    s->held = 0;
    s->left = 0;
    struct timeval stall = {.tv_sec = STALL_S};
    setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof stall);
    watch(s, EPOLL_CTL_ADD, EPOLLIN);
}

static void begin_message(struct session *s) {
    if (started >= wanted) {
        s->step = QUIT;
        say(s, command[QUIT], command_size[QUIT]);
        return;
    }
    s->number = started++;
    s->step = MAIL;
    if (pipelined) say(s, envelope, envelope_size);
    else say(s, command[MAIL], command_size[MAIL]);
}

/* A whole reply has come, and it is the expected one. */
static void advance(struct session *s) {
    switch (s->step) {
    case HELLO:
        begin_message(s);
        return;
    case BODY:
        finished++;
        if (!one_each) {
            begin_message(s);
            return;
        }
        s->step = QUIT;
        break;
    case QUIT:
        close(s->fd);
        s->fd = -1;
        if (started < wanted) open_session(s);
        return;
    default:
        s->step++;
        if (pipelined && (s->step == RCPT || s->step == DATA)) return;
    }
    if (domains && s->step == RCPT) {
        const char *one = recipients[s->number % domains];
        say(s, one, strlen(one));
        return;
    }
    say(s, command[s->step], command_size[s->step]);
}

static void readable(struct session *s) {
    ssize_t n = recv(s->fd, s->line + s->held, sizeof s->line - s->held, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) fail("connection ended by the server", n ? strerror(errno) : "end of file");
    int have = s->held + (int)n, at = 0;
    while (s->fd >= 0) {
        char *end = memchr(s->line + at, '\n', have - at);
        if (!end) break;
        int size = (int)(end - (s->line + at));
        if (size < 4 || memcmp(s->line + at, expected[s->step], 3)) {
            *end = 0;
            fail("unexpected reply", s->line + at);
        }
        int last = s->line[at + 3] != '-';
        at += size + 1;
        if (last) advance(s);
    }
    s->held = have - at;
    if (s->held == (int)sizeof s->line) fail("reply", "a line is too long");
    memmove(s->line, s->line + at, s->held);
}

static void set(enum step step, const char *text, size_t size) {
    command[step] = memcpy(malloc(size), text, size);
    command_size[step] = size;
}

/* The message of a file, with the final dot. */
static void read_message(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path, strerror(errno));
    char *body = malloc(MOST_OCTETS + 3);
    size_t size = fread(body, 1, MOST_OCTETS, file);
    if (size < 2 || memcmp(body + size - 2, "\r\n", 2)) fail(path, "the last line does not end in CRLF");
    fclose(file);
    memcpy(body + size, ".\r\n", 3);
    command[BODY] = body;
    command_size[BODY] = size + 3;
}

static void prepare(const char *sender, const char *recipient, size_t octets, const char *path) {
    char text[1024];
    set(HELLO, "EHLO load.bench.example\r\n", 25);
    set(MAIL, text, snprintf(text, sizeof text, "MAIL FROM:<%s>\r\n", sender));
    set(RCPT, text, snprintf(text, sizeof text, "RCPT TO:<%s>\r\n", recipient));
    const char *at = strchr(recipient, '@');
    if (domains && !at) fail(recipient, "has no domain");
    recipients = calloc(domains + 1, sizeof *recipients);
    for (long i = 0; i < domains; i++) {
        int size = snprintf(recipients[i], RCPT_OCTETS, "RCPT TO:<%.*s@d%ld.%s>\r\n", (int)(at - recipient), recipient, i, at + 1);
        if (size >= RCPT_OCTETS) fail(recipient, "is too long");
    }
    set(DATA, "DATA\r\n", 6);
    set(QUIT, "QUIT\r\n", 6);
    envelope_size = command_size[MAIL] + command_size[RCPT] + 6;
    envelope = malloc(envelope_size);
    memcpy(envelope, command[MAIL], command_size[MAIL]);
    memcpy(envelope + command_size[MAIL], command[RCPT], command_size[RCPT]);
    memcpy(envelope + envelope_size - 6, "DATA\r\n", 6);
    if (path) {
        read_message(path);
        return;
    }
    size_t head = snprintf(text, sizeof text, "From: <%s>\r\nTo: <%s>\r\nSubject: load\r\n\r\n", sender, recipient);
    if (octets < head + 2) octets = head + 2;
    char *body = malloc(octets + 3);
    memcpy(body, text, head);
    for (size_t i = head; i < octets; i++) {
        size_t column = (i - head) % 78;
        body[i] = column == 76 ? '\r' : column == 77 ? '\n' : 'x';
    }
    if (body[octets - 3] == '\r') body[octets - 3] = 'x';
    memcpy(body + octets - 2, "\r\n.\r\n", 5);
    command[BODY] = body;
    command_size[BODY] = octets + 3;
}

int main(int argc, char **argv) {
    const char *sender = "load@bench.example", *recipient = "hold@hold.example", *path = NULL;
    long sessions = 20, octets = 4096;
    int option;
    while ((option = getopt(argc, argv, "pos:m:l:f:t:d:i:")) > 0) switch (option) {
        case 'p': pipelined = 1; break;
        case 'o': one_each = 1; break;
        case 's': sessions = atol(optarg); break;
        case 'm': wanted = atol(optarg); break;
        case 'l': octets = atol(optarg); break;
        case 'f': sender = optarg; break;
        case 't': recipient = optarg; break;
        case 'd': domains = atol(optarg); break;
        case 'i': path = optarg; break;
        default: return 64;
    }
    if (argc - optind != 2 || sessions < 1 || sessions > 20000 || wanted < 1 || octets > 1 << 27 || domains < 0 ||
        domains > 1000000 || (domains && pipelined)) {
        fprintf(stderr, "usage: smtp_load [-p] [-o] [-s n] [-m n] [-l octets] [-f from] [-t to] [-d n] [-i file] "
                        "127.0.0.1 port\n");
        return 64;
    }
    peer.sin_family = AF_INET;
    peer.sin_port = htons(atoi(argv[optind + 1]));
    if (inet_pton(AF_INET, argv[optind], &peer.sin_addr) != 1 || (ntohl(peer.sin_addr.s_addr) >> 24) != 127)
        fail(argv[optind], "load goes to an address in 127.0.0.0/8 only");
    prepare(sender, recipient, octets, path);
    poller = epoll_create1(0);
    struct session *all = calloc(sessions, sizeof *all);
    if (sessions > wanted) sessions = wanted;
    double begin = now();
    for (long i = 0; i < sessions; i++) open_session(all + i);
    long open = sessions;
    while (open) {
        struct epoll_event events[256];
        int n = epoll_wait(poller, events, 256, STALL_S * 1000);
        if (n == 0) fail("stalled", "no reply for a minute");
        for (int i = 0; i < n; i++) {
            struct session *s = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                push(s);
                if (!s->left) watch(s, EPOLL_CTL_MOD, EPOLLIN);
            }
            if (s->fd >= 0 && events[i].events & ~EPOLLOUT) readable(s);
            if (s->fd < 0) open--;
        }
    }
    double seconds = now() - begin;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"messages\": %ld, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", finished, seconds, cpu);
    return finished == wanted ? 0 : 1;
}
