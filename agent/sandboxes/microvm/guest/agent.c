/* The agent in the machine: process 1 of the guest, which boots it and then does what the host says over one virtio-serial port.
 *
 * It is no boundary. Whoever takes it over has the guest, which has nothing but its own disk; the boundary is the machine. What it
 * does for order inside: commands run as one user without privileges, in their own process and mount namespace, which dies with
 * the command; files are reached with that user's rights, by paths that the kernel resolves below the guest's root.
 *
 * A frame is: u32 length of the payload, u32 id, u8 type, 3 bytes of nothing; all little-endian. See ../channel.py for the types.
 */
#define _GNU_SOURCE
#include "egress.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/random.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PING = 1, CLOCK, FURNISH, RUN, STDIN, KILL, READ, WRITE, WDATA, LIST, SYNC, UNMOUNT, PLACE, KEEP = 32 };
enum { OK = 64, ERR, OUT, ERROUT, EXITED, ACK, DATA, ENTRIES, OPENED, GONE };

#define USER 1000
#define ROOT "/sysroot"
#define WORKSPACE "/workspace"
#define LARGEST (1 << 20)
#define CHUNK (1 << 16)
#define STORE "/store"

struct frame { uint32_t length, id; uint8_t type, none[3]; };

static int port = -1, root = -1, disk = -1, urandom = -1, memory_max = -1, pids_max = -1, nothing = -1;
static unsigned char filter[65536];
static size_t filter_size;

static void complain(const char *what) {
    fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
}

static void write_all(int to, const void *from, size_t count) {
    const char *rest = from;
    while (count) {
        ssize_t done = write(to, rest, count);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == EAGAIN) {
            struct pollfd ready = {to, POLLOUT, 0};
            poll(&ready, 1, -1);
            continue;
        }
        if (done < 0) { complain("writing to the host"); return; }
        rest += done;
        count -= done;
    }
}

static void say(uint32_t id, uint8_t type, const void *payload, size_t length) {
    static char buffer[sizeof(struct frame) + LARGEST];
    struct frame head = {(uint32_t)length, id, type, {0, 0, 0}};
    memcpy(buffer, &head, sizeof head);
    memcpy(buffer + sizeof head, payload, length);
    write_all(port, buffer, sizeof head + length);
}

/* An error: u32 errno, then what was tried. errno 0: the path leads out of the workspace. */
static void fail(uint32_t id, int number, const char *format, ...) {
    char text[512];
    uint32_t code = number;
    memcpy(text, &code, 4);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text + 4, sizeof text - 4, format, arguments);
    va_end(arguments);
    say(id, ERR, text, 4 + (length < (int)sizeof text - 4 ? length : (int)sizeof text - 5));
}

static void write_file(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0) complain(path);
    if (file >= 0) close(file);
}

/* What the host was told is on the disk: a machine that dies afterwards takes nothing of it along. -1 and errno if it is not. */
static int settle(void) {
    if (disk < 0 || !syncfs(disk)) return 0;
    int kept = errno;
    complain("syncfs");
    errno = kept;
    return -1;
}

/* ---- Files, with the user's rights ---- */

static void as_user(void) { setfsgid(USER); setfsuid(USER); }
static void as_root(void) { setfsuid(0); setfsgid(0); }

static int open_inside(const char *path, int flags, mode_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    int file;
    do file = syscall(SYS_openat2, root, *path == '/' ? path + 1 : path, &how, sizeof how);
    while (file < 0 && errno == EAGAIN);
    return file;
}

/* Opens a path of the workspace as the user. -1 and errno, which is 0 if it leads out. */
static int open_file(const char *path, int flags) {
    as_user();
    int file = open_inside(path, flags, 0, RESOLVE_IN_ROOT);
    as_root();
    if (file < 0) return -1;
    char link[64], name[4200];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, name, sizeof name - 1);
    const char *top = ROOT WORKSPACE;
    if (length < (ssize_t)strlen(top) || memcmp(name, top, strlen(top)) ||
        (length > (ssize_t)strlen(top) && name[strlen(top)] != '/')) {
        close(file);
        errno = 0;
        return -1;
    }
    return file;
}

static int open_regular(const char *path, int flags) {
    int file = open_file(path, flags | O_NONBLOCK | O_NOCTTY);
    struct stat about;
    if (file < 0 || fstat(file, &about)) return -1;
    if (S_ISREG(about.st_mode)) return file;
    close(file);
    errno = S_ISDIR(about.st_mode) ? EISDIR : ENXIO;
    return -1;
}

/* u64 offset, u32 count, path -> u64 size, bytes */
static void read_part(uint32_t id, char *payload) {
    uint64_t offset;
    uint32_t count;
    memcpy(&offset, payload, 8);
    memcpy(&count, payload + 8, 4);
    static char answer[8 + (LARGEST >> 1)];
    if (count > sizeof answer - 8) count = sizeof answer - 8;
    int file = open_regular(payload + 12, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about)) { fail(id, errno, "%s", payload + 12); return; }
    uint64_t size = about.st_size;
    size_t have = 0;
    while (have < count) {
        ssize_t got = pread(file, answer + 8 + have, count - have, offset + have);
        if (got < 0) { fail(id, errno, "%s", payload + 12); close(file); return; }
        if (!got) break;
        have += got;
    }
    close(file);
    if (!offset) settle();
    memcpy(answer, &size, 8);
    say(id, DATA, answer, 8 + have);
}

struct writing { uint32_t id; int file; uint64_t total, done; int created, error; char path[4200]; struct writing *next; };
static struct writing *writings;

static int make_folders(char *path) {
    int folder = open_file(path, O_PATH | O_DIRECTORY);
    if (folder >= 0) { close(folder); return 0; }
    if (errno != ENOENT) return -1;
    char *slash = strrchr(path, '/');
    if (!slash || slash == path) { errno = 0; return -1; }
    *slash = 0;
    int made = make_folders(path);
    folder = made ? -1 : open_file(path, O_PATH | O_DIRECTORY);
    *slash = '/';
    if (folder < 0) return -1;
    as_user();
    int result = mkdirat(folder, slash + 1, 0755);
    as_root();
    int kept = errno;
    close(folder);
    errno = kept;
    if (result && errno != EEXIST) return -1;
    folder = open_file(path, O_PATH | O_DIRECTORY);
    if (folder < 0) { if (errno == ENOENT) errno = EEXIST; return -1; }
    close(folder);
    return 0;
}

static int create_file(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash || slash == path) { errno = 0; return -1; }
    *slash = 0;
    int folder = make_folders(path) ? -1 : open_file(path, O_PATH | O_DIRECTORY);
    *slash = '/';
    if (folder < 0) return -1;
    as_user();
    int file = openat(folder, slash + 1, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    as_root();
    int kept = errno;
    close(folder);
    errno = kept;
    return file;
}

static void unlink_inside(const char *path) {
    char parent[4200];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    *slash = 0;
    int folder = open_file(parent, O_PATH | O_DIRECTORY);
    if (folder < 0) return;
    as_user();
    unlinkat(folder, slash + 1, 0);
    as_root();
    close(folder);
}

static void written(struct writing *writing) {
    struct writing **place = &writings;
    while (*place != writing) place = &(*place)->next;
    *place = writing->next;
    if (!writing->error && ftruncate(writing->file, writing->total)) writing->error = errno;
    close(writing->file);
    if (settle() && !writing->error) writing->error = errno;
    if (writing->error && writing->created) unlink_inside(writing->path);
    if (writing->error) fail(writing->id, writing->error, "%s", writing->path);
    else say(writing->id, OK, "", 0);
    free(writing);
}

/* u64 total, path; then WDATA until the total is there. Room first, so that a full disk leaves the old content whole. */
static void write_begin(uint32_t id, char *payload) {
    struct writing *writing = calloc(1, sizeof *writing);
    writing->id = id;
    memcpy(&writing->total, payload, 8);
    snprintf(writing->path, sizeof writing->path, "%s", payload + 8);
    writing->file = strlen(payload + 8) < sizeof writing->path ? open_regular(writing->path, O_RDWR) : (errno = ENAMETOOLONG, -1);
    if (writing->file < 0 && errno == ENOENT) {
        writing->file = create_file(writing->path);
        writing->created = 1;
    }
    if (writing->file < 0) {
        fail(id, errno, "%s", payload + 8);
        free(writing);
        return;
    }
    struct stat about;
    fstat(writing->file, &about);
    if (writing->total && fallocate(writing->file, 0, 0, writing->total)) {
        writing->error = errno == EOPNOTSUPP ? 0 : errno;
        if (writing->error && ftruncate(writing->file, about.st_size)) complain("ftruncate");
    }
    writing->next = writings;
    writings = writing;
    if (writing->error || !writing->total) written(writing);
}

static void write_data(uint32_t id, const char *data, size_t length) {
    struct writing *writing = writings;
    while (writing && writing->id != id) writing = writing->next;
    if (!writing) return;
    while (length && !writing->error) {
        ssize_t done = pwrite(writing->file, data, length, writing->done);
        if (done < 0) { writing->error = errno; break; }
        data += done;
        length -= done;
        writing->done += done;
    }
    if (writing->error || writing->done >= writing->total) written(writing);
}

/* path -> ENTRIES (u64 size, u8 is a folder, name, NUL)*, then OK */
static void list_folder(uint32_t id, const char *path) {
    static char answer[CHUNK + 512];
    int folder = open_file(path, O_RDONLY | O_DIRECTORY);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    if (!entries) { fail(id, errno, "%s", path); return; }
    size_t length = 0;
    struct dirent *entry;
    while ((entry = readdir(entries))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        struct stat about;
        as_user();
        int failed = fstatat(folder, entry->d_name, &about, AT_SYMLINK_NOFOLLOW);
        as_root();
        if (failed) continue;
        if (S_ISLNK(about.st_mode)) {
            char name[4600];
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            int target = open_file(name, O_PATH);
            if (target >= 0) { fstat(target, &about); close(target); }
        }
        uint64_t size = about.st_size;
        memcpy(answer + length, &size, 8);
        answer[length + 8] = S_ISDIR(about.st_mode);
        strcpy(answer + length + 9, entry->d_name);
        length += 9 + strlen(entry->d_name) + 1;
        if (length >= CHUNK) { say(id, ENTRIES, answer, length); length = 0; }
    }
    closedir(entries);
    if (length) say(id, ENTRIES, answer, length);
    settle();
    say(id, OK, "", 0);
}

/* ---- Commands ---- */

struct stream {
    int pipe;
    uint32_t front, back, kept;
    uint64_t total;
    char *tail;
    uint32_t room;
};

struct run {
    uint32_t id;
    pid_t pid;
    int exited, code, input, status, closing;
    char *pending;
    size_t waiting, at;
    struct stream out[2];
    struct run *next;
};
static struct run *runs;

static void no_privileges(void) {
    for (int capability = 0; capability < 64; capability++) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (setgroups(0, NULL) || setresgid(USER, USER, USER) || setresuid(USER, USER, USER)) _exit(125);
}

/* For this process and its children: taking the filter down is work, and so is left to the last of them. */
static void filter_calls(void) {
    struct sock_fprog program = {filter_size / sizeof(struct sock_filter), (struct sock_filter *)filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(125);
}

static void limit(int what, rlim_t soft, rlim_t hard) {
    struct rlimit both = {soft, hard};
    setrlimit(what, &both);
}

static int read_all(int from, void *to, size_t count) {
    char *rest = to;
    while (count) {
        ssize_t got = read(from, rest, count);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return -1;
        rest += got;
        count -= got;
    }
    return 0;
}

enum { ORDER = 3, STATUS = 4, INPUT = 5 };

static char *next_string(char **rest);

/* u32 length, then u32 piped, variables, arguments; then cwd, variables and arguments, each with a NUL */
static void obey_order(void) {
    uint32_t length, *numbers;
    char *order;
    if (read_all(ORDER, &length, sizeof length) || !(order = malloc(length)) || read_all(ORDER, order, length)) _exit(125);
    close(ORDER);
    numbers = (uint32_t *)order;
    char *rest = order + 3 * sizeof *numbers, *cwd = next_string(&rest);
    char **environment = calloc(numbers[1] + 1, sizeof *environment), **arguments = calloc(numbers[2] + 1, sizeof *arguments);
    if (!environment || !arguments) _exit(125);
    for (uint32_t n = 0; n < numbers[1]; n++) environment[n] = next_string(&rest);
    for (uint32_t n = 0; n < numbers[2]; n++) arguments[n] = next_string(&rest);
    if (numbers[0] && dup2(INPUT, 0) < 0) _exit(125);
    close(INPUT);
    if (chdir(cwd)) {
        fprintf(stderr, "%s: %s\n", cwd, strerror(errno));
        _exit(1);
    }
    environ = environment;
    execvp(arguments[0], arguments);
    fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
    _exit(errno == ENOENT || errno == ENOTDIR ? 127 : 126);
}

/* The command's own process: without privileges long before it knows what it will be. */
static void become_command(void) {
    close(STATUS);
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    write_file("/proc/self/oom_score_adj", "0");
    limit(RLIMIT_NOFILE, 4096, 16384);
    no_privileges();
    obey_order();
}

/* Process 1 of the command's namespace: its end is that of everything in it. What is mounted outside later appears here too.
 * How the command ended is told when nothing else lives here: taking the namespaces down needs nobody to wait for it, so that
 * is left for when nobody else has anything to do. */
static void keep(void) {
    prctl(PR_SET_NAME, "keeper");
    write_file("/cg/work/cgroup.procs", "0");
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL)) _exit(125);
    umount2(STORE, MNT_DETACH); /* of what the workspace is made a command sees the whole only */
    if (mount("proc", ROOT "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "") || chroot(ROOT) || chdir("/")) _exit(125);
    write_file("/proc/self/oom_score_adj", "-1000");
    limit(RLIMIT_CORE, 1, 1); /* the filter lets nobody change that */
    filter_calls();
    pid_t command = fork();
    if (command == 0) become_command();
    if (command < 0) _exit(125);
    close(0);
    close(1);
    close(2);
    close(ORDER);
    close(INPUT);
    int status;
    pid_t ended;
    do ended = waitpid(-1, &status, 0);
    while (ended != command && (ended > 0 || errno == EINTR));
    uint32_t code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    do kill(-1, SIGKILL);
    while (waitpid(-1, &status, 0) > 0 || errno == EINTR);
    sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
    if (write(STATUS, &code, sizeof code) != sizeof code) complain("telling how a command ended");
    _exit(code);
}

static char *next_string(char **rest) {
    char *string = *rest;
    *rest += strlen(string) + 1;
    return string;
}

static int pipe_of_user(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC)) return -1;
    fcntl(ends[0], F_SETPIPE_SZ, 1 << 18);
    return fchown(ends[0], USER, USER);
}

/* A process that waits to be told what to run. */
struct prepared { pid_t pid; int order, input, status, out[2]; };

enum { READY = 2 };
static struct prepared prepared[READY];
static int ready, tired;

static void give_up(struct prepared *one) {
    int all[] = {one->order, one->input, one->status, one->out[0], one->out[1]};
    for (unsigned n = 0; n < sizeof all / sizeof *all; n++)
        if (all[n] >= 0) close(all[n]);
}

static int prepare(struct prepared *one) {
    int ends[5][2] = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}}; /* stdin, stdout, stderr, ORDER, STATUS */
    int failed = 0;
    for (int n = 0; n < 5 && !failed; n++) failed = n < 3 ? pipe_of_user(ends[n]) : pipe2(ends[n], O_CLOEXEC);
    pid_t pid = failed ? -1 : syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        int theirs[6] = {nothing, ends[1][1], ends[2][1], ends[3][0], ends[4][1], ends[0][0]};
        for (int n = 0; n < 6; n++) theirs[n] = fcntl(theirs[n], F_DUPFD, 16); /* out of the way of where they go */
        for (int n = 0; n < 6; n++) dup2(theirs[n], n);
        close_range(6, ~0U, 0);
        keep();
    }
    int number = errno;
    for (int n = 0; n < 5; n++) {
        int theirs = n == 0 || n == 3 ? 0 : 1;
        if (ends[n][theirs] >= 0) close(ends[n][theirs]);
    }
    *one = (struct prepared){pid, ends[3][1], ends[0][1], ends[4][0], {ends[1][0], ends[2][0]}};
    if (pid > 0) return 0;
    give_up(one);
    errno = number;
    return -1;
}

/* Has a prepared process run what was asked. -1 if it has died meanwhile: memory may have been short. */
static int order(struct prepared *one, const char *payload, uint32_t length) {
    struct { uint32_t length; } head = {length};
    if (write(one->order, &head, sizeof head) != sizeof head) return -1;
    while (length) {
        ssize_t done = write(one->order, payload, length);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return -1;
        payload += done;
        length -= done;
    }
    return 0;
}

/* u32 front, back (bytes kept of each output), then what obey_order says */
static void start(uint32_t id, char *payload, uint32_t length) {
    uint32_t front, back, piped;
    memcpy(&front, payload, 4);
    memcpy(&back, payload + 4, 4);
    memcpy(&piped, payload + 8, 4);
    struct prepared one;
    for (;;) {
        if (ready) one = prepared[--ready];
        else if (prepare(&one)) { fail(id, errno, "a process cannot be started"); return; }
        if (!order(&one, payload + 8, length - 8)) break;
        give_up(&one);
    }
    close(one.order);
    if (!piped) { close(one.input); one.input = -1; }
    struct run *run = calloc(1, sizeof *run);
    *run = (struct run){.id = id, .pid = one.pid, .input = one.input, .status = one.status, .next = runs};
    for (int n = 0; n < 2; n++) {
        fcntl(one.out[n], F_SETFL, O_NONBLOCK);
        run->out[n] = (struct stream){.pipe = one.out[n], .front = front, .back = back};
    }
    if (piped) fcntl(one.input, F_SETFL, O_NONBLOCK);
    runs = run;
}

/* Passes on the first bytes at once and keeps the last ones until the end. */
static int take(struct run *run, int which) {
    static char buffer[CHUNK];
    struct stream *stream = &run->out[which];
    ssize_t got = read(stream->pipe, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) return 1;
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) { close(stream->pipe); stream->pipe = -1; return 0; }
    char *rest = buffer;
    size_t count = got;
    stream->total += got;
    size_t now = stream->front < count ? stream->front : count;
    if (now) { say(run->id, OUT + which, rest, now); stream->front -= now; rest += now; count -= now; }
    if (!count || !stream->back) return 1;
    if (stream->kept + count > stream->room) {
        uint32_t most = 2 * stream->back + CHUNK, wanted = stream->kept + count;
        if (stream->kept + count > most) {
            uint32_t keep = stream->kept < stream->back ? stream->kept : stream->back;
            memmove(stream->tail, stream->tail + stream->kept - keep, keep);
            stream->kept = keep;
        }
        wanted = 2 * wanted < most ? 2 * wanted : most;
        if (wanted > stream->room) { stream->tail = realloc(stream->tail, wanted); stream->room = wanted; }
    }
    memcpy(stream->tail + stream->kept, rest, count);
    stream->kept += count;
    return 1;
}

static void say_tail(struct run *run, int which) {
    struct stream *stream = &run->out[which];
    uint32_t keep = stream->kept < stream->back ? stream->kept : stream->back;
    char *rest = stream->tail + stream->kept - keep;
    while (keep) {
        uint32_t now = keep < CHUNK ? keep : CHUNK;
        say(run->id, OUT + which, rest, now);
        rest += now;
        keep -= now;
    }
    free(stream->tail);
}

static void pour(struct run *run) {
    ssize_t done = run->waiting ? write(run->input, run->pending + run->at, run->waiting) : 0;
    if (done < 0 && (errno == EAGAIN || errno == EINTR)) return;
    uint32_t count = done < 0 ? run->waiting : (size_t)done; /* nobody reads it any more: that is no error */
    run->at += count;
    run->waiting -= count;
    if (count) say(run->id, ACK, &count, 4);
    if (run->waiting) return;
    run->at = 0;
    if (run->closing || done < 0) { close(run->input); run->input = -1; }
}

static struct run *find_run(uint32_t id) {
    struct run *run = runs;
    while (run && run->id != id) run = run->next;
    return run;
}

static void more_input(uint32_t id, const char *data, size_t length) {
    struct run *run = find_run(id);
    if (!run) return;
    uint32_t count = length;
    if (run->input < 0) { if (length) say(id, ACK, &count, 4); return; }
    if (!length) run->closing = 1;
    memmove(run->pending, run->pending + run->at, run->waiting);
    run->at = 0;
    run->pending = realloc(run->pending, run->waiting + length + 1);
    memcpy(run->pending + run->waiting, data, length);
    run->waiting += length;
    pour(run);
}

static void has_ended(struct run *run, int code) {
    if (!run->exited) run->code = code;
    run->exited = 1;
}

static void reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        tired = 0;
        for (struct run *run = runs; run; run = run->next)
            if (run->pid == pid) has_ended(run, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
        for (int n = 0; n < ready; n++)
            if (prepared[n].pid == pid) { give_up(&prepared[n]); prepared[n--] = prepared[--ready]; }
    }
}

/* What the keeper says before it goes; one that is killed says nothing, and is reaped. */
static void told(struct run *run) {
    uint32_t code;
    if (read(run->status, &code, sizeof code) == sizeof code) has_ended(run, code);
    close(run->status);
    run->status = -1;
}

/* All of the command's namespace is dead, so the pipes hold what there is. */
static void finish(void) {
    for (struct run **place = &runs; *place;) {
        struct run *run = *place;
        if (!run->exited) { place = &run->next; continue; }
        for (int n = 0; n < 2; n++) {
            while (run->out[n].pipe >= 0 && take(run, n));
            if (run->out[n].pipe >= 0) close(run->out[n].pipe); /* it was given to somebody who lives on */
            say_tail(run, n);
        }
        int lost = settle() ? errno : 0;
        char answer[20];
        uint32_t code = run->code;
        memcpy(answer, &code, 4);
        memcpy(answer + 4, &run->out[0].total, 8);
        memcpy(answer + 12, &run->out[1].total, 8);
        if (lost) fail(run->id, lost, "what the command wrote");
        else say(run->id, EXITED, answer, sizeof answer);
        if (run->input >= 0) close(run->input);
        if (run->status >= 0) close(run->status);
        *place = run->next;
        free(run->pending);
        free(run);
    }
}

/* ---- Mounting what came with this machine ---- */

static int open_folder(const char *path) {
    int folder = open_inside(path, O_PATH | O_DIRECTORY, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
    if (folder >= 0 || errno != ENOENT) return folder;
    char parent[4200];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (!slash || slash == parent) return -1;
    *slash = 0;
    int above = open_folder(parent);
    if (above < 0) return -1;
    mkdirat(above, slash + 1, 0755);
    fchownat(above, slash + 1, USER, USER, AT_SYMLINK_NOFOLLOW);
    close(above);
    return open_inside(path, O_PATH | O_DIRECTORY, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
}

/* Mounts what lies at `what` on a folder of the guest's root: ".", the folder itself, makes it one that nobody inside can move. */
static int bind_on(const char *what, const char *path) {
    int folder = open_folder(path);
    if (folder < 0) return -1;
    int failed = fchdir(folder) || mount(what, ".", NULL, MS_BIND, NULL), kept = errno;
    close(folder);
    if (chdir("/")) complain("/");
    errno = kept;
    return failed ? -1 : 0;
}

/* What was written is the host's as soon as it says so: there is no cache to flush. Nothing is looked at or zeroed in advance. */
#define DISK_OPTIONS "discard,errors=remount-ro,nobarrier,noinit_itable,no_prefetch_block_bitmaps,noblock_validity"

/* One layer: what its disk holds, with what is written over it on the workspace's. The overlay alone stays in sight. */
static int lay(unsigned slot, int forget) {
    char device[32], over[64], text[400];
    snprintf(device, sizeof device, "/dev/vd%c", 'c' + slot);
    snprintf(over, sizeof over, STORE "/over/%u", slot);
    snprintf(text, sizeof text, "lowerdir=" STORE "/layer,upperdir=" STORE "/disk/layers/%u/upper,workdir=" STORE "/disk/layers/%u/work,index=off,redirect_dir=on,metacopy=off", slot, slot);
    mkdir(over, 0755);
    if (mount(device, STORE "/layer", "ext4", MS_RDONLY | MS_NOSUID | MS_NODEV, "noload")) return -1;
    int failed = mount("overlay", over, "overlay", MS_NOSUID | MS_NODEV, text), kept = errno;
    umount2(STORE "/layer", MNT_DETACH);
    int disk = failed || !forget ? -1 : open(device, O_RDONLY | O_CLOEXEC);
    if (disk >= 0) {
        failed = ioctl(disk, BLKFLSBUF, 0);
        kept = errno;
        close(disk);
    }
    errno = kept;
    return failed;
}

/* u32 layers, u32 forget. Mounts the workspace's disk and the layers', where nobody but the agent sees them.
 * forget: other disks of the same outline will take the layers' places, so that nothing that was read of them may be remembered. */
static void furnish(uint32_t id, const char *payload) {
    uint32_t count, forget;
    memcpy(&count, payload, 4);
    memcpy(&forget, payload + 4, 4);
    int made = mount("store", STORE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,size=1m");
    const char *folders[] = {STORE "/disk", STORE "/layer", STORE "/over"};
    for (unsigned n = 0; n < sizeof folders / sizeof *folders; n++) mkdir(folders[n], 0755);
    if (made || mount("/dev/vdb", STORE "/disk", "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, DISK_OPTIONS) ||
        bind_on(STORE "/disk/tmp", "/tmp")) {
        fail(id, errno, "the workspace cannot be mounted");
        return;
    }
    for (uint32_t n = 0; n < count; n++)
        if (lay(n, forget)) { fail(id, errno, "layer %u cannot be mounted", n); return; }
    disk = open(STORE "/disk", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    say(id, OK, "", 0);
}

/* Writes a number: printf is some 200 pieces of code to translate, in every machine anew. */
static int tell(int file, uint64_t number) {
    char text[20], *first = text + sizeof text;
    do *--first = '0' + number % 10; while (number /= 10);
    return write(file, first, text + sizeof text - first) > 0 ? 0 : -1;
}

/* u64 memory, u32 processes, u32 mounts; then for each what bind_on takes: what to mount and where, each with a NUL. */
static void place(uint32_t id, char *payload) {
    uint64_t memory;
    uint32_t processes, count;
    memcpy(&memory, payload, 8);
    memcpy(&processes, payload + 8, 4);
    memcpy(&count, payload + 12, 4);
    if (tell(memory_max, memory) || tell(pids_max, processes + 2 * READY)) complain("commands' bounds");
    char *rest = payload + 16;
    for (uint32_t n = 0; n < count; n++) {
        char *what = next_string(&rest), *where = next_string(&rest);
        if (bind_on(what, where)) { fail(id, errno, "%s on %s", what, where); return; }
    }
    say(id, OK, "", 0);
}

static void kill_all(void) {
    for (struct run *run = runs; run; run = run->next) kill(run->pid, SIGKILL);
    while (runs) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        if (pid < 0) break;
        for (struct run *run = runs; run; run = run->next)
            if (run->pid == pid) { run->exited = 1; run->code = 137; }
        finish();
    }
}

static int listed(uint32_t id, const char *payload, size_t length) {
    for (size_t at = 0; at + 4 <= length; at += 4)
        if (!memcmp(payload + at, &id, 4)) return 1;
    return 0;
}

/* u32 ids: the requests that somebody still waits for. What else runs is of a host process that is gone. */
static void keep_only(uint32_t id, const char *payload, size_t length) {
    for (struct run *run = runs; run; run = run->next)
        if (!listed(run->id, payload, length)) kill(run->pid, SIGKILL);
    for (struct writing **place = &writings; *place;) {
        struct writing *writing = *place;
        if (listed(writing->id, payload, length)) { place = &writing->next; continue; }
        *place = writing->next;
        close(writing->file);
        free(writing);
    }
    say(id, OK, "", 0);
}

static void unmount_disks(uint32_t id) {
    kill_all();
    if (umount2(ROOT "/tmp", MNT_DETACH) || umount2(ROOT WORKSPACE, MNT_DETACH)) complain("unmounting the views");
    if (disk >= 0) { close(disk); disk = -1; }
    sync();
    if (umount2(STORE, MNT_DETACH)) complain("unmounting the store");
    int file; /* EBUSY while it is mounted anywhere: the namespaces of the last commands go in their own time */
    for (int tries = 0; (file = open("/dev/vdb", O_RDONLY | O_EXCL | O_CLOEXEC)) < 0 && tries < 1000; tries++) usleep(1000);
    if (file < 0) { fail(id, errno, "the workspace's disk"); return; }
    close(file);
    say(id, OK, "", 0);
}

/* u64 seconds, u32 nanoseconds, then bytes of the host's randomness: two clones of one template would otherwise share theirs. */
static void set_clock(uint32_t id, const char *payload, size_t length) {
    uint64_t seconds;
    uint32_t nanoseconds;
    memcpy(&seconds, payload, 8);
    memcpy(&nanoseconds, payload + 8, 4);
    struct timespec now = {seconds, nanoseconds};
    if (clock_settime(CLOCK_REALTIME, &now)) complain("clock_settime");
    struct { int bits, size; char bytes[64]; } entropy = {0, 0, {0}};
    entropy.size = length - 12 < sizeof entropy.bytes ? length - 12 : sizeof entropy.bytes;
    entropy.bits = entropy.size * 8;
    memcpy(entropy.bytes, payload + 12, entropy.size);
    if (ioctl(urandom, RNDADDENTROPY, &entropy) || ioctl(urandom, RNDRESEEDCRNG, 0)) complain("reseeding");
    say(id, OK, "", 0);
}

/* ---- The loop ---- */

static void obey(struct frame *head, char *payload) {
    struct run *run;
    switch (head->type) {
    case PING: say(head->id, OK, payload, head->length); break;
    case CLOCK: set_clock(head->id, payload, head->length); break;
    case FURNISH: furnish(head->id, payload); break;
    case PLACE: place(head->id, payload); break;
    case RUN: start(head->id, payload, head->length); break;
    case STDIN: more_input(head->id, payload, head->length); break;
    case KILL:
        run = find_run(head->id);
        if (run) kill(run->pid, SIGKILL);
        break;
    case READ: read_part(head->id, payload); break;
    case WRITE: write_begin(head->id, payload); break;
    case WDATA: write_data(head->id, payload, head->length); break;
    case LIST: list_folder(head->id, payload); break;
    case SYNC: settle(); say(head->id, OK, "", 0); break;
    case UNMOUNT: unmount_disks(head->id); break;
    case KEEP: keep_only(head->id, payload, head->length); break;
    default: fail(head->id, EINVAL, "there is no request %d", head->type);
    }
}

/* Reads what is there, and obeys every frame that is whole. */
static void hear(void) {
    static char buffer[sizeof(struct frame) + LARGEST + 1];
    static size_t have;
    ssize_t got = read(port, buffer + have, sizeof buffer - 1 - have);
    if (got <= 0) {
        if (got == 0) usleep(1000);
        return;
    }
    have += got;
    size_t at = 0;
    struct frame head;
    while (have - at >= sizeof head) {
        memcpy(&head, buffer + at, sizeof head);
        if (have - at < sizeof head + head.length) break;
        char *payload = buffer + at + sizeof head, after = payload[head.length];
        payload[head.length] = 0;
        obey(&head, payload);
        payload[head.length] = after;
        at += sizeof head + head.length;
    }
    memmove(buffer, buffer + at, have - at);
    have -= at;
}

/* Milliseconds without anything to do after which processes are prepared for the next commands, when none is left. */
#define IDLE 300

static void serve(void) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    int ended = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    struct pollfd *watched = NULL;
    for (;;) {
        int count = 2;
        for (struct run *run = runs; run; run = run->next) count += 4;
        watched = realloc(watched, count * sizeof *watched);
        watched[0] = (struct pollfd){port, POLLIN, 0};
        watched[1] = (struct pollfd){ended, POLLIN, 0};
        int at = 2;
        for (struct run *run = runs; run; run = run->next) {
            watched[at++] = (struct pollfd){run->out[0].pipe, POLLIN, 0};
            watched[at++] = (struct pollfd){run->out[1].pipe, POLLIN, 0};
            watched[at++] = (struct pollfd){run->waiting ? run->input : -1, POLLOUT, 0};
            watched[at++] = (struct pollfd){run->status, POLLIN, 0};
        }
        int seen = poll(watched, count, !ready && !runs && !tired ? IDLE : -1);
        if (seen < 0) continue;
        if (!seen) {
            while (ready < READY && !tired)
                if (prepare(&prepared[ready])) tired = 1;
                else ready++;
            continue;
        }
        at = 2;
        for (struct run *run = runs; run; run = run->next, at += 4) {
            for (int n = 0; n < 2; n++)
                if (watched[at + n].revents && run->out[n].pipe >= 0) take(run, n);
            if (watched[at + 2].revents && run->input >= 0) pour(run);
            if (watched[at + 3].revents) told(run);
        }
        finish();
        if (watched[1].revents) {
            struct signalfd_siginfo about;
            while (read(ended, &about, sizeof about) > 0);
            reap();
            finish();
        }
        if (watched[0].revents) hear();
    }
}

/* ---- Booting ---- */

static void load_modules(void) {
    struct dirent **names;
    int count = scandir("/modules", &names, NULL, alphasort);
    for (int n = 0; n < count; n++) {
        if (*names[n]->d_name == '.') continue;
        char path[300];
        snprintf(path, sizeof path, "/modules/%s", names[n]->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0 || (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST)) complain(path);
        if (file >= 0) close(file);
    }
}

/* A disk here is a file of the host, which has a scheduler and a cache of its own. */
static void leave_disks_alone(void) {
    for (char letter = 'a'; letter <= 'z'; letter++) {
        const char *names[] = {"scheduler", "wbt_lat_usec", "iostats", "nomerges"}, *values[] = {"none", "0", "0", "2"};
        char path[64];
        snprintf(path, sizeof path, "/sys/block/vd%c", letter);
        if (access(path, F_OK)) return;
        for (int n = 0; n < 4; n++) {
            snprintf(path, sizeof path, "/sys/block/vd%c/queue/%s", letter, names[n]);
            write_file(path, values[n]);
        }
    }
}

static void make_node(const char *path, int major_number, int minor_number) {
    if (mknod(path, S_IFCHR | 0666, makedev(major_number, minor_number))) complain(path);
    chmod(path, 0666);
}

static void make_dev(void) {
    mount("dev", ROOT "/dev", "tmpfs", MS_NOSUID, "size=1m,mode=755");
    make_node(ROOT "/dev/null", 1, 3);
    make_node(ROOT "/dev/zero", 1, 5);
    make_node(ROOT "/dev/full", 1, 7);
    make_node(ROOT "/dev/random", 1, 8);
    make_node(ROOT "/dev/urandom", 1, 9);
    make_node(ROOT "/dev/tty", 5, 0);
    if (symlink("/proc/self/fd", ROOT "/dev/fd") || symlink("/proc/self/fd/0", ROOT "/dev/stdin") ||
        symlink("/proc/self/fd/1", ROOT "/dev/stdout") || symlink("/proc/self/fd/2", ROOT "/dev/stderr") ||
        symlink("pts/ptmx", ROOT "/dev/ptmx"))
        complain("links of /dev");
    mkdir(ROOT "/dev/pts", 0755);
    mkdir(ROOT "/dev/shm", 01777);
    mount("devpts", ROOT "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620");
    mount("shm", ROOT "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "size=64m,mode=1777");
}

static void raise_loopback(void) {
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo"};
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (any < 0 || ioctl(any, SIOCSIFFLAGS, &request)) complain("loopback");
    if (any >= 0) close(any);
}

static int wait_for(const char *path, int flags) {
    int file;
    for (int tries = 0; (file = open(path, flags | O_CLOEXEC)) < 0 && tries < 5000; tries++) usleep(1000);
    if (file < 0) complain(path);
    return file;
}

/* The port that the host gave this name: /dev/vportMpN, where M counts devices. */
static int open_port(const char *wanted) {
    for (int tries = 0; tries < 5000; tries++, usleep(1000)) {
        DIR *ports = opendir("/sys/class/virtio-ports");
        struct dirent *entry;
        int found = -1;
        while (ports && found < 0 && (entry = readdir(ports))) {
            char path[600], name[64] = "";
            snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
            int file = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t length = file < 0 ? 0 : read(file, name, sizeof name - 1);
            if (file >= 0) close(file);
            if (length <= 0 || strncmp(name, wanted, strlen(wanted))) continue;
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            found = open(path, O_RDWR | O_CLOEXEC);
        }
        if (ports) closedir(ports);
        if (found >= 0) return found;
    }
    complain(wanted);
    return -1;
}

int main(void) {
    const char *folders[] = {"/dev", "/proc", "/sys", "/cg", STORE, ROOT};
    for (unsigned n = 0; n < sizeof folders / sizeof *folders; n++) mkdir(folders[n], 0755);
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "");
    int console = open("/dev/console", O_RDWR);
    if (console >= 0) { dup2(console, 0); dup2(console, 1); dup2(console, 2); if (console > 2) close(console); }
    umask(022);
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    load_modules();
    close(wait_for("/dev/vda", O_RDONLY));
    if (mount("/dev/vda", ROOT, "ext4", MS_RDONLY | MS_NODEV | MS_NOSUID, "noload")) { complain("the system's image"); return 1; }
    make_dev();
    leave_disks_alone();
    if (mount(NULL, ROOT, NULL, MS_REC | MS_SHARED, NULL)) complain("sharing mounts with commands");
    mount("cgroup", "/cg", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    write_file("/cg/cgroup.subtree_control", "+memory +pids");
    mkdir("/cg/work", 0755);
    sethostname("sandbox", 7);
    write_file("/proc/sys/vm/stat_interval", "3600"); /* an idle machine sleeps */
    write_file("/proc/sys/vm/compaction_proactiveness", "0");
    write_file("/proc/sys/vm/dirty_writeback_centisecs", "3000");
    raise_loopback();
    int file = open("/filter.bpf", O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, filter, sizeof filter);
    if (size <= 0) { complain("the system-call filter"); return 1; }
    filter_size = size;
    close(file);
    signal(SIGPIPE, SIG_IGN);
    root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
    port = open_port("sbx.agent");
    urandom = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    memory_max = open("/cg/work/memory.max", O_WRONLY | O_CLOEXEC);
    pids_max = open("/cg/work/pids.max", O_WRONLY | O_CLOEXEC);
    nothing = open(ROOT "/dev/null", O_RDONLY | O_CLOEXEC);
    if (root < 0 || port < 0 || urandom < 0 || memory_max < 0 || pids_max < 0 || nothing < 0) return 1;
    egress_start(open_port, root);
    serve();
    return 1;
}
