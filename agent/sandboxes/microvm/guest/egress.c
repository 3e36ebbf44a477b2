/* The guest's end of the door: a process that listens on 127.0.0.1:3128 and carries connections over one virtio-serial port.
 *
 * It is no boundary: what may be reached is decided on the host, which trusts nothing that comes over the port. It listens only
 * after the host has said HELLO. Each side may send at most WINDOW bytes of a connection that the other has not yet taken, so
 * the port never waits for a slow connection, and memory is bounded on both sides.
 *
 * A frame is: u8 type, 3 bytes of nothing, u32 connection, u32 length of the payload; all little-endian. A byte of zero where a
 * frame should begin is skipped: that is how a host finds the beginning again after a machine was restored in mid-frame.
 */
#define _GNU_SOURCE
#include "egress.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPEN = 1, DATA, CREDIT, END, CLOSE, READY, HELLO, TRUST };

#ifndef LISTEN_PORT
#define LISTEN_PORT 3128
#endif
#define WINDOW (128 << 10)
#define MOST 128
#define PART (32 << 10)
#define LARGEST (1 << 16)
#define NONCE 16
#define CERTIFICATES (1 << 20)
#define BUNDLE "etc/ssl/certs/ca-certificates.crt"

struct head { uint8_t type, none[3]; uint32_t id, length; };

struct connection {
    int socket;              /* -1: this slot is free */
    uint32_t id, window;     /* what may still be sent to the host */
    uint32_t at, waiting;    /* of the host's bytes, in `pending` */
    uint32_t taken;          /* bytes the program took that the host was not told of */
    int ended, host_ended;   /* no more bytes come from the program, from the host */
    char *pending;
};

static struct connection connections[MOST];
static int port = -1, listener = -1, inside = -1, original = -1, bundle = -1;
static uint32_t last, trusted;
static char certificates[CERTIFICATES];

static void send_frame(uint8_t type, uint32_t id, const void *payload, uint32_t length) {
    static char buffer[sizeof(struct head) + LARGEST];
    struct head head = {type, {0, 0, 0}, id, length};
    memcpy(buffer, &head, sizeof head);
    memcpy(buffer + sizeof head, payload, length);
    const char *rest = buffer;
    size_t count = sizeof head + length;
    while (count) {
        ssize_t done = write(port, rest, count);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == EAGAIN) {
            struct pollfd ready = {port, POLLOUT, 0};
            poll(&ready, 1, -1);
            continue;
        }
        if (done < 0) return;
        rest += done;
        count -= done;
    }
}

/* ---- Trust: the host's certificates, added to those of the system ---- */

static int open_below(int folder, const char *path, int flags) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    return syscall(SYS_openat2, folder, path, &how, sizeof how);
}

static int copy_all(int from, int to) {
    static char buffer[LARGEST];
    ssize_t got;
    if (lseek(from, 0, SEEK_SET) < 0) return -1;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, got) != got) return -1;
    return got;
}

static int mount_at(const char *what, const char *path, const char *kind, unsigned long flags, const char *options) {
    char source[64], target[64];
    int from = kind ? -1 : open_below(inside, what, O_PATH), to = open_below(inside, path, O_PATH);
    snprintf(source, sizeof source, "/proc/self/fd/%d", from);
    snprintf(target, sizeof target, "/proc/self/fd/%d", to);
    int result = to < 0 ? -1 : mount(kind ? what : source, target, kind, flags, options), kept = errno;
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    errno = kept;
    return result;
}

/* The bundle lies in memory at /run/egress and over the system's own, if there is one. */
static int trust(void) {
    if (inside < 0 || !trusted) return 0;
    if (bundle < 0) {
        if (mount_at("run", "run", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4m,mode=755")) return -1;
        int run = open_below(inside, "run", O_PATH | O_DIRECTORY);
        if (run < 0 || mkdirat(run, "egress", 0755)) return -1;
        int folder = openat(run, "egress", O_PATH | O_DIRECTORY | O_CLOEXEC);
        bundle = openat(folder, "ca-certificates.crt", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        close(folder);
        close(run);
        if (bundle < 0) return -1;
        original = open_below(inside, BUNDLE, O_RDONLY);
        if (original >= 0 && mount_at("run/egress/ca-certificates.crt", BUNDLE, NULL, MS_BIND, NULL)) return -1;
    }
    if (ftruncate(bundle, 0) || lseek(bundle, 0, SEEK_SET) < 0 || (original >= 0 && copy_all(original, bundle))) return -1;
    return write(bundle, certificates, trusted) == (ssize_t)trusted ? 0 : -1;
}

/* What the host says is to be trusted comes in pieces before its HELLO, each with the place where it belongs. */
static void collect(uint32_t at, const char *piece, uint32_t length) {
    if (!at) trusted = 0;
    if (at != trusted || length > CERTIFICATES - trusted) return;
    memcpy(certificates + trusted, piece, length);
    trusted += length;
}

/* ---- Connections ---- */

static struct connection *find(uint32_t id) {
    for (int n = 0; n < MOST; n++)
        if (connections[n].socket >= 0 && connections[n].id == id) return &connections[n];
    return NULL;
}

static void drop(struct connection *one, int tell) {
    if (tell) send_frame(CLOSE, one->id, "", 0);
    close(one->socket);
    free(one->pending);
    *one = (struct connection){.socket = -1};
}

static void accept_one(void) {
    int n = 0;
    while (n < MOST && connections[n].socket >= 0) n++;
    if (n == MOST) return;
    int made = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
    if (made < 0) return;
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections[n] = (struct connection){.socket = made, .id = ++last, .window = WINDOW, .pending = malloc(WINDOW)};
    if (!connections[n].pending) { drop(&connections[n], 0); return; }
    send_frame(OPEN, last, "", 0);
}

static void from_program(struct connection *one) {
    static char buffer[PART];
    ssize_t got = read(one->socket, buffer, one->window < sizeof buffer ? one->window : sizeof buffer);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) { drop(one, 1); return; }
    if (!got) {
        one->ended = 1;
        send_frame(END, one->id, "", 0);
        if (one->host_ended && !one->waiting) drop(one, 1);
        return;
    }
    one->window -= got;
    send_frame(DATA, one->id, buffer, got);
}

static void to_program(struct connection *one) {
    while (one->waiting) {
        uint32_t count = WINDOW - one->at < one->waiting ? WINDOW - one->at : one->waiting;
        ssize_t done = send(one->socket, one->pending + one->at, count, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == EAGAIN) break;
        if (done < 0) { drop(one, 1); return; }
        one->at = (one->at + done) % WINDOW;
        one->waiting -= done;
        one->taken += done;
    }
    if (one->taken >= WINDOW / 4) {
        send_frame(CREDIT, one->id, &one->taken, 4);
        one->taken = 0;
    }
    if (!one->waiting && one->host_ended) {
        shutdown(one->socket, SHUT_WR);
        if (one->ended) drop(one, 1);
    }
}

static void from_host(struct connection *one, const char *data, uint32_t length) {
    if (!one) return;
    if (length > WINDOW - one->waiting) { drop(one, 1); return; }
    uint32_t end = (one->at + one->waiting) % WINDOW, first = WINDOW - end < length ? WINDOW - end : length;
    memcpy(one->pending + end, data, first);
    memcpy(one->pending, data + first, length - first);
    one->waiting += length;
    to_program(one);
}

/* A new host: nothing of what was open goes on. */
static void hello(const char *payload, uint32_t length) {
    char answer[NONCE + 4] = {0};
    uint32_t number = 0;
    if (length < NONCE) return;
    struct linger reset = {1, 0}; /* what they had got so far may be wrong: that must not look like an end */
    for (int n = 0; n < MOST; n++)
        if (connections[n].socket >= 0) {
            setsockopt(connections[n].socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            drop(&connections[n], 0);
        }
    if (trust()) number = errno ? errno : EIO;
    if (listener < 0) {
        struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(LISTEN_PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int on = 1, made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (made < 0 || bind(made, (struct sockaddr *)&here, sizeof here) || listen(made, 64)) {
            number = errno;
            if (made >= 0) close(made);
        } else listener = made;
    }
    memcpy(answer, payload, NONCE);
    memcpy(answer + NONCE, &number, 4);
    send_frame(READY, 0, answer, sizeof answer);
}

static void obey_host(const struct head *head, const char *payload) {
    struct connection *one = find(head->id);
    uint32_t count;
    switch (head->type) {
    case HELLO: hello(payload, head->length); break;
    case TRUST: collect(head->id, payload, head->length); break;
    case DATA: from_host(one, payload, head->length); break;
    case CREDIT:
        if (!one || head->length != 4) break;
        memcpy(&count, payload, 4);
        one->window = count > WINDOW - one->window ? WINDOW : one->window + count;
        break;
    case END:
        if (one) { one->host_ended = 1; to_program(one); }
        break;
    case CLOSE:
        if (one) drop(one, 0);
        break;
    }
}

/* 1: there may be more; 0: there is none now; -1: the port is gone. */
static int hear_host(void) {
    static char buffer[sizeof(struct head) + LARGEST];
    static size_t have;
    ssize_t got = read(port, buffer + have, sizeof buffer - have);
    if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (!got && inside < 0) return -1;
    if (!got) { usleep(100000); return 0; } /* nobody at the host's end, for now */
    have += got;
    size_t at = 0;
    struct head head;
    for (;;) {
        while (at < have && !buffer[at]) at++;
        if (have - at < sizeof head) break;
        memcpy(&head, buffer + at, sizeof head);
        if (head.length > LARGEST) { at++; continue; } /* no frame: look for the next one */
        if (have - at < sizeof head + head.length) break;
        obey_host(&head, buffer + at + sizeof head);
        at += sizeof head + head.length;
    }
    memmove(buffer, buffer + at, have - at);
    have -= at;
    return 1;
}

/* Serves until the port is gone. `root` is the folder of the system inside, or -1 where there is none to trust anybody. */
void egress_serve(int on, int root) {
    signal(SIGPIPE, SIG_IGN);
    port = on;
    inside = root;
    for (int n = 0; n < MOST; n++) connections[n].socket = -1;
    fcntl(port, F_SETFL, fcntl(port, F_GETFL) | O_NONBLOCK);
    static struct pollfd watched[MOST + 2];
    static struct connection *whose[MOST + 2];
    for (;;) {
        int count = 2;
        for (int n = 0; n < MOST; n++) {
            struct connection *one = &connections[n];
            if (one->socket < 0) continue;
            short events = (one->window && !one->ended ? POLLIN : 0) | (one->waiting ? POLLOUT : 0);
            whose[count] = one;
            watched[count++] = (struct pollfd){one->socket, events, 0};
        }
        watched[0] = (struct pollfd){port, POLLIN, 0};
        watched[1] = (struct pollfd){count == MOST + 2 ? -1 : listener, POLLIN, 0};
        if (poll(watched, count, -1) < 0) continue;
        for (int n = 2; n < count; n++) {
            struct connection *one = whose[n];
            short seen = watched[n].revents;
            if (one->socket != watched[n].fd || !seen) continue;
            if (seen & POLLOUT) to_program(one);
            if (one->socket >= 0 && seen & POLLIN) from_program(one);
            else if (one->socket >= 0 && seen & (POLLERR | POLLHUP) && !(seen & POLLOUT)) drop(one, 1);
        }
        if (watched[1].revents) accept_one();
        if (watched[0].revents & POLLIN) {
            for (int turns = 0, heard = 1; heard > 0 && turns < 16; turns++) /* a read gives no more than a page */
                if ((heard = hear_host()) < 0) return;
        } else if (watched[0].revents) {
            if (inside < 0) return;
            usleep(100000);
        }
    }
}

void egress_start(int (*open_port)(const char *), int root) {
    if (fork()) return;
    prctl(PR_SET_NAME, "egress");
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int descriptor = 3; descriptor < 64; descriptor++)
        if (descriptor != root) close(descriptor);
    int found = open_port("sbx.egress");
    if (found >= 0) egress_serve(found, root);
    _exit(0);
}
