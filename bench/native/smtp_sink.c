/* The cheap SMTP sink: takes mail, counts it, keeps nothing. One thread, epoll.
 *
 *   smtp_sink [-o] [-d n] [-t certificate -k key] host port counter-file
 *
 *   -o  closes the connection behind each message
 *   -d  says 452 to every n-th RCPT: that mailbox is full
 *   -t  offers STARTTLS, and resumes sessions by ticket; only where built WITH_TLS
 *
 * `counter-file` is mapped, and its first eight octets are the number of messages taken, in the machine's order, the
 * next eight that of recipients refused: who waits for the last message reads numbers and parses nothing. Says 250 to
 * whatever is a command, and offers PIPELINING, 8BITMIME, SIZE and SMTPUTF8. It ends when it is told to (TERM). As
 * host 0.0.0.0 it is each address of the loopback interface, and of no other.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

enum { READ_OCTETS = 65536, LINE_OCTETS = 2048, REPLY_OCTETS = 16384 };
static const char hello[] =
    "250-sink.bench.example\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n";
#ifdef WITH_TLS
static const char hello_tls[] =
    "250-sink.bench.example\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n250-STARTTLS\r\n250 SMTPUTF8\r\n";
static SSL_CTX *context;
#endif

struct session {
    int fd;
    int in_data;
    int matched; /* octets of "\r\n.\r\n" seen at the end of the last read */
    int held;
    int refused;  /* the last RCPT was */
    int starting; /* TLS begins behind this reply */
    char line[LINE_OCTETS];
#ifdef WITH_TLS
    SSL *tls;
#endif
};

static uint64_t *count; /* taken, refused */
static int one_each;
static long defers, asked;
static char input[READ_OCTETS], reply[REPLY_OCTETS];
static size_t replied;

static void say(const char *text, size_t size) {
    if (replied + size > sizeof reply) return; /* a client that pipelines this much gets no further answers */
    memcpy(reply + replied, text, size);
    replied += size;
}

static ssize_t take(struct session *s) {
#ifdef WITH_TLS
    if (s->tls) {
        int n = SSL_read(s->tls, input, sizeof input);
        if (n > 0) return n;
        int why = SSL_get_error(s->tls, n);
        if (why != SSL_ERROR_WANT_READ) return 0;
        errno = EAGAIN;
        return -1;
    }
#endif
    return recv(s->fd, input, sizeof input, MSG_DONTWAIT);
}

static int give(struct session *s) {
#ifdef WITH_TLS
    if (s->tls) return SSL_write(s->tls, reply, replied) == (int)replied;
#endif
    return send(s->fd, reply, replied, MSG_NOSIGNAL) == (ssize_t)replied;
}

static int is(const char *line, const char *verb) { return strncasecmp(line, verb, 4) == 0; }

/* Whether the session goes on. */
static int take_line(struct session *s, const char *line) {
#ifdef WITH_TLS
    if (context && !s->tls && is(line, "EHLO")) {
        say(hello_tls, sizeof hello_tls - 1);
        return 1;
    }
    if (context && !s->tls && is(line, "STAR")) {
        say("220 go on\r\n", 11);
        s->starting = 1;
        return 1;
    }
#endif
    if (is(line, "EHLO") || is(line, "LHLO")) say(hello, sizeof hello - 1);
    else if (defers && is(line, "RCPT") && ++asked % defers == 0) {
        count[1]++;
        say("452 4.2.2 mailbox full\r\n", 24);
        s->refused = 1;
    } else if (s->refused && is(line, "DATA")) {
        say("554 5.5.1 no valid recipients\r\n", 31);
        s->refused = 0;
    } else if (is(line, "MAIL")) {
        s->refused = 0;
        say("250 2.0.0 ok\r\n", 14);
    }
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
                count[0]++;
                say("250 2.0.0 taken\r\n", 17);
                return i;
            }
        } else if (s->matched) s->matched = 0;
        else i++;
    }
    return size;
}

static int readable(struct session *s) {
    ssize_t n = take(s);
    if (n < 0 && errno == EAGAIN) return 1;
    if (n <= 0) return 0;
    size_t at = 0;
    int going = 1;
    replied = 0;
    while (going && !s->starting && at < (size_t)n) {
        if (s->in_data) {
            at += take_data(s, input + at, n - at);
            if (one_each && !s->in_data) going = 0;
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
    if (replied && !give(s)) return 0;
#ifdef WITH_TLS
    if (s->starting) {
        s->starting = 0;
        s->tls = SSL_new(context);
        SSL_set_fd(s->tls, s->fd);
        SSL_set_accept_state(s->tls);
        return going;
    }
    if (going && s->tls) return readable(s); /* what the library has read is no event of the socket */
#endif
    return going;
}

int main(int argc, char **argv) {
    struct sockaddr_in here = {.sin_family = AF_INET};
    int on = 1, option;
    const char *certificate = NULL, *key = NULL;
    while ((option = getopt(argc, argv, "od:t:k:")) > 0) switch (option) {
        case 'o': one_each = 1; break;
        case 'd': defers = atol(optarg); break;
        case 't': certificate = optarg; break;
        case 'k': key = optarg; break;
        default: return 64;
    }
    argv += optind - 1;
    if (argc - optind != 3 || inet_pton(AF_INET, argv[1], &here.sin_addr) != 1 || !certificate != !key) {
        fprintf(stderr, "usage: smtp_sink [-o] [-d n] [-t certificate -k key] 127.0.0.1 port counter-file\n");
        return 64;
    }
#ifdef WITH_TLS
    if (certificate) {
        signal(SIGPIPE, SIG_IGN);
        context = SSL_CTX_new(TLS_server_method());
        if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
            SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
            fprintf(stderr, "smtp_sink: %s, %s: unreadable\n", certificate, key);
            return 66;
        }
    }
#else
    if (certificate) return 64;
#endif
    here.sin_port = htons(atoi(argv[2]));
    int file = open(argv[3], O_RDWR | O_CREAT, 0644);
    if (file < 0 || ftruncate(file, 16) < 0) return perror(argv[3]), 73;
    count = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (here.sin_addr.s_addr == 0 && setsockopt(listener, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0)
        return perror("loopback interface"), 71;
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
#ifdef WITH_TLS
                if (s->tls) {
                    SSL_shutdown(s->tls);
                    SSL_free(s->tls);
                }
#endif
                close(s->fd);
                free(s);
            }
        }
    }
}
