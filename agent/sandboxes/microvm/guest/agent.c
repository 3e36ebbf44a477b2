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

enum { PING = 1, CLOCK, MOUNT, RUN, STDIN, KILL, READ, WRITE, WDATA, LIST, SYNC, UNMOUNT, KEEP = 32 };
enum { OK = 64, ERR, OUT, ERROUT, EXITED, ACK, DATA, ENTRIES, OPENED, GONE };

#define USER 1000
#define ROOT "/sysroot"
#define WORKSPACE "/workspace"
#define LARGEST (1 << 20)
#define CHUNK (1 << 16)

struct frame { uint32_t length, id; uint8_t type, none[3]; };

static int port = -1, root = -1, disk = -1;
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
    int exited, code, input, closing;
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
    struct sock_fprog program = {filter_size / sizeof(struct sock_filter), (struct sock_filter *)filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(125);
}

static void limit(int what, rlim_t soft, rlim_t hard) {
    struct rlimit both = {soft, hard};
    setrlimit(what, &both);
}

static void become_command(const char *cwd, char **environment, char **arguments) {
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    write_file("/proc/self/oom_score_adj", "0");
    limit(RLIMIT_CORE, 1, 1);
    limit(RLIMIT_NOFILE, 4096, 16384);
    no_privileges();
    if (chdir(cwd)) {
        fprintf(stderr, "%s: %s\n", cwd, strerror(errno));
        _exit(1);
    }
    environ = environment;
    execvp(arguments[0], arguments);
    fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
    _exit(errno == ENOENT || errno == ENOTDIR ? 127 : 126);
}

/* Process 1 of the command's namespace: its end is that of everything in it. */
static void keep(const char *cwd, char **environment, char **arguments) {
    prctl(PR_SET_NAME, "keeper");
    write_file("/cg/work/cgroup.procs", "0");
    if (mount("proc", ROOT "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "") || chroot(ROOT) || chdir("/")) _exit(125);
    write_file("/proc/self/oom_score_adj", "-1000");
    pid_t command = fork();
    if (command == 0) become_command(cwd, environment, arguments);
    if (command < 0) _exit(125);
    close(0);
    close(1);
    close(2);
    int status;
    pid_t ended;
    do ended = waitpid(-1, &status, 0);
    while (ended != command && (ended > 0 || errno == EINTR));
    _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
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

/* u32 front, back (bytes kept of each output), piped, variables, arguments; then cwd, variables and arguments, each with a NUL */
static void start(uint32_t id, char *payload) {
    uint32_t numbers[5];
    memcpy(numbers, payload, sizeof numbers);
    char *rest = payload + sizeof numbers, *cwd = next_string(&rest);
    char **environment = calloc(numbers[3] + 1, sizeof *environment), **arguments = calloc(numbers[4] + 1, sizeof *arguments);
    for (uint32_t n = 0; n < numbers[3]; n++) environment[n] = next_string(&rest);
    for (uint32_t n = 0; n < numbers[4]; n++) arguments[n] = next_string(&rest);
    int in[2], out[2], err[2];
    if (numbers[2]) pipe_of_user(in);
    else in[0] = open(ROOT "/dev/null", O_RDONLY | O_CLOEXEC), in[1] = -1;
    pipe_of_user(out);
    pipe_of_user(err);
    pid_t pid = syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        close_range(3, ~0U, 0);
        keep(cwd, environment, arguments);
    }
    int number = errno;
    free(environment);
    free(arguments);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    if (pid < 0) {
        close(out[0]);
        close(err[0]);
        if (in[1] >= 0) close(in[1]);
        fail(id, number, "a process cannot be started");
        return;
    }
    struct run *run = calloc(1, sizeof *run);
    *run = (struct run){.id = id, .pid = pid, .input = in[1], .next = runs};
    int ours[2] = {out[0], err[0]};
    for (int n = 0; n < 2; n++) {
        fcntl(ours[n], F_SETFL, O_NONBLOCK);
        run->out[n] = (struct stream){.pipe = ours[n], .front = numbers[0], .back = numbers[1]};
    }
    if (in[1] >= 0) fcntl(in[1], F_SETFL, O_NONBLOCK);
    runs = run;
}

/* Passes on the first bytes at once and keeps the last ones until the end. */
static void take(struct run *run, int which) {
    static char buffer[CHUNK];
    struct stream *stream = &run->out[which];
    ssize_t got = read(stream->pipe, buffer, sizeof buffer);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { close(stream->pipe); stream->pipe = -1; return; }
    char *rest = buffer;
    size_t count = got;
    stream->total += got;
    size_t now = stream->front < count ? stream->front : count;
    if (now) { say(run->id, OUT + which, rest, now); stream->front -= now; rest += now; count -= now; }
    if (!count || !stream->back) return;
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

static void reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (struct run *run = runs; run; run = run->next)
            if (run->pid == pid) {
                run->exited = 1;
                run->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            }
}

/* The keeper is gone, so all of its namespace is, so the pipes hold what there is and nobody writes to them. */
static void finish(void) {
    for (struct run **place = &runs; *place;) {
        struct run *run = *place;
        if (!run->exited) { place = &run->next; continue; }
        for (int n = 0; n < 2; n++) {
            while (run->out[n].pipe >= 0) take(run, n);
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

static int mount_on(const char *what, const char *path, const char *kind, unsigned long flags, const char *options) {
    int folder = open_folder(path);
    if (folder < 0) return -1;
    char place[64];
    snprintf(place, sizeof place, "/proc/self/fd/%d", folder);
    int result = mount(what ? what : place, place, kind, flags, options);
    int kept = errno;
    close(folder);
    errno = kept;
    return result;
}

/* Makes a folder above a layer a mount point of itself, so that nobody inside can move or replace it. */
static int hold(const char *path) {
    int folder = open_folder(path);
    if (folder < 0) return -1;
    close(folder);
    return mount_on(NULL, path, NULL, MS_BIND, NULL);
}

/* u64 memory, u32 processes, u32 layers; then for each: u32 device, target, NUL. Targets come parents first. */
static void mount_disks(uint32_t id, char *payload) {
    uint64_t memory;
    uint32_t processes, count;
    char text[4400];
    memcpy(&memory, payload, 8);
    memcpy(&processes, payload + 8, 4);
    memcpy(&count, payload + 12, 4);
    snprintf(text, sizeof text, "%llu", (unsigned long long)memory);
    write_file("/cg/work/memory.max", text);
    snprintf(text, sizeof text, "%u", processes);
    write_file("/cg/work/pids.max", text);
    if (mount("/dev/vdb", "/disk", "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, "discard,errors=remount-ro") ||
        mount_on("/disk/view/workspace", WORKSPACE, NULL, MS_BIND, NULL) || mount_on("/disk/view/tmp", "/tmp", NULL, MS_BIND, NULL)) {
        fail(id, errno, "the workspace cannot be mounted");
        return;
    }
    disk = open("/disk", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *rest = payload + 16;
    char held[8192] = "";
    for (uint32_t n = 0; n < count; n++) {
        uint32_t device;
        memcpy(&device, rest, 4);
        rest += 4;
        char *target = next_string(&rest), path[64], disk[32];
        for (char *slash = target + strlen(WORKSPACE) + 1; (slash = strchr(slash, '/')); slash++) {
            *slash = 0;
            char mark[4300];
            snprintf(mark, sizeof mark, ":%s:", target);
            int failed = strstr(held, mark) ? 0 : hold(target);
            if (!failed && strlen(held) + strlen(mark) < sizeof held) strcat(held, mark);
            *slash = '/';
            if (failed) { fail(id, errno, "the way to %s", target); return; }
        }
        snprintf(path, sizeof path, "/layers/%u", n);
        mkdir(path, 0755);
        snprintf(disk, sizeof disk, "/dev/vd%c", 'a' + device);
        if (mount(disk, path, "ext4", MS_RDONLY | MS_NOSUID | MS_NODEV, "noload")) {
            fail(id, errno, "the image of %s", target);
            return;
        }
        snprintf(text, sizeof text, "lowerdir=/layers/%u,upperdir=/disk/layers/%u/upper,workdir=/disk/layers/%u/work,index=off,redirect_dir=off,metacopy=off", n, n, n);
        if (mount_on("overlay", target, "overlay", MS_NOSUID | MS_NODEV, text)) {
            fail(id, errno, "the layer of %s", target);
            return;
        }
        char mark[4300];
        snprintf(mark, sizeof mark, ":%s:", target);
        if (strlen(held) + strlen(mark) < sizeof held) strcat(held, mark);
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
    for (int tries = 0; umount2("/disk", 0) && tries < 100; tries++) usleep(1000);
    sync();
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
    int random = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (random < 0 || ioctl(random, RNDADDENTROPY, &entropy) || ioctl(random, RNDRESEEDCRNG, 0)) complain("reseeding");
    if (random >= 0) close(random);
    say(id, OK, "", 0);
}

/* ---- The loop ---- */

static void obey(struct frame *head, char *payload) {
    struct run *run;
    switch (head->type) {
    case PING: say(head->id, OK, payload, head->length); break;
    case CLOCK: set_clock(head->id, payload, head->length); break;
    case MOUNT: mount_disks(head->id, payload); break;
    case RUN: start(head->id, payload); break;
    case STDIN: more_input(head->id, payload, head->length); break;
    case KILL:
        run = find_run(head->id);
        if (run) kill(run->pid, SIGKILL);
        break;
    case READ: read_part(head->id, payload); break;
    case WRITE: write_begin(head->id, payload); break;
    case WDATA: write_data(head->id, payload, head->length); break;
    case LIST: list_folder(head->id, payload); break;
    case SYNC: sync(); say(head->id, OK, "", 0); break;
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

static void serve(void) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    int ended = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    struct pollfd *watched = NULL;
    for (;;) {
        int count = 2;
        for (struct run *run = runs; run; run = run->next) count += 3;
        watched = realloc(watched, count * sizeof *watched);
        watched[0] = (struct pollfd){port, POLLIN, 0};
        watched[1] = (struct pollfd){ended, POLLIN, 0};
        int at = 2;
        for (struct run *run = runs; run; run = run->next) {
            watched[at++] = (struct pollfd){run->out[0].pipe, POLLIN, 0};
            watched[at++] = (struct pollfd){run->out[1].pipe, POLLIN, 0};
            watched[at++] = (struct pollfd){run->waiting ? run->input : -1, POLLOUT, 0};
        }
        if (poll(watched, count, -1) < 0) continue;
        at = 2;
        for (struct run *run = runs; run; run = run->next, at += 3) {
            for (int n = 0; n < 2; n++)
                if (watched[at + n].revents && run->out[n].pipe >= 0) take(run, n);
            if (watched[at + 2].revents && run->input >= 0) pour(run);
        }
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
    const char *folders[] = {"/dev", "/proc", "/sys", "/cg", "/disk", "/layers", ROOT};
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
    mount("cgroup", "/cg", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    write_file("/cg/cgroup.subtree_control", "+memory +pids");
    mkdir("/cg/work", 0755);
    sethostname("sandbox", 7);
    write_file("/proc/sys/vm/stat_interval", "3600"); /* an idle machine sleeps */
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
    if (root < 0 || port < 0) return 1;
    egress_start(open_port, root);
    serve();
    return 1;
}
