// The shim: what runs when a test runner starts a worker through sandrun.
//
// It is a constructor of the sandrun binary, so that it runs before the Go
// runtime boots (which would cost about 2 ms a worker). It connects to the
// supervisor's socket, says who it is, waits for admission, and becomes the
// program by execve: same pid, same descriptors, same exit status, nothing in
// between. By then the supervisor has moved it into a leaf with its caps.
//
// The protocol is in wire.go.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SANDRUN 125       // sandrun could not do its job
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127
#define REQUEST_MAX (64 << 10) // longer argument lists are cut: the supervisor only shows them
#define REPLY_MAX (16 << 10)
#define EXTRA_MAX 64           // extra arguments that a reply may carry

extern char **environ;

static int fail(int code, const char *format, ...)
{
	char line[4096];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	if (n >= (int)sizeof line)
		n = sizeof line - 1;
	dprintf(STDERR_FILENO, "sandrun: %.*s\n", n, line);
	return code;
}

// put appends s and its NUL at p, or nothing at all when it does not fit.
static char *put(char *p, const char *end, const char *s)
{
	size_t n = strlen(s) + 1;
	if (p == NULL || n > (size_t)(end - p))
		return NULL;
	return (char *)memcpy(p, s, n) + n;
}

// become executes argv; it returns only on failure, with errno set. A fresh test
// binary may still be open for writing in a child that its builder has forked
// meanwhile: ETXTBSY passes within milliseconds.
static void become(char **argv)
{
	struct timespec pause = {0, 1000000};
	for (int i = 0; i < 12; i++) {
		execvpe(argv[0], argv, environ);
		if (errno != ETXTBSY)
			return;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 500000000)
			pause.tv_nsec *= 2;
	}
}

static int exec_failed(char **argv)
{
	int code = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
	return fail(code, "%s: %s", argv[0], strerror(errno));
}

// raise_oom_score makes the worker, not its neighbours, the victim when memory
// runs out above its leaf. The kernel refuses only a lower value.
static void raise_oom_score(const char *value)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0) {
		// It stays what it was, and so does the cap.
	}
	close(fd);
}

static int dial(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof a.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(a.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	int r;
	do {
		r = connect(fd, (struct sockaddr *)&a, sizeof a);
	} while (r < 0 && errno == EINTR);
	if (r < 0) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static int request(int fd, const char *kind, const char *label, char **argv)
{
	static char packet[REQUEST_MAX];
	const char *end = packet + sizeof packet;
	char cwd[4096];
	if (getcwd(cwd, sizeof cwd) == NULL)
		strcpy(cwd, "?");
	char *p = put(packet, end, "1"), *next;
	p = put(p, end, kind);
	p = put(p, end, label);
	p = put(p, end, cwd);
	if (p == NULL) {
		errno = E2BIG;
		return -1;
	}
	for (char **a = argv; *a != NULL && (next = put(p, end, *a)) != NULL; a++)
		p = next;
	ssize_t n;
	do {
		n = send(fd, packet, p - packet, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : 0;
}

// insert puts the extra arguments of a reply behind argv[0].
static char **insert(char **argv, const char *extra, const char *end)
{
	int argc = 0, more = 0;
	while (argv[argc] != NULL)
		argc++;
	for (const char *p = extra; p < end; p += strlen(p) + 1)
		more++;
	if (more == 0)
		return argv;
	if (more > EXTRA_MAX)
		return NULL;
	char **out = calloc(argc + more + 1, sizeof *out);
	if (out == NULL)
		return NULL;
	out[0] = argv[0];
	int i = 1;
	for (const char *p = extra; p < end; p += strlen(p) + 1)
		out[i++] = (char *)p;
	memcpy(out + i, argv + 1, argc * sizeof *out);
	return out;
}

static int shim(const char *socket_path, const char *kind, const char *label, char **argv)
{
	int fd = dial(socket_path);
	if (fd < 0)
		return fail(EXIT_SANDRUN, "connect to SANDRUN_SOCK=%s: %s (%s)", socket_path, strerror(errno),
			    errno == EACCES || errno == EPERM ? "only the user who started the run, and root, may add workers to it"
							      : "the run that set it has ended; unset it, or start again under 'sandrun exec'");
	if (request(fd, kind, label, argv) < 0)
		return fail(EXIT_SANDRUN, "ask %s for a worker: %s", socket_path, strerror(errno));

	static char reply[REPLY_MAX + 1];
	ssize_t n;
	do {
		n = recv(fd, reply, REPLY_MAX, 0);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return fail(EXIT_SANDRUN, "the supervisor of this run is gone: %s was not started, since nothing would cap it", argv[0]);
	reply[n] = 0;
	const char *end = reply + n;

	switch (reply[0]) {
	case 'P': // not a worker, or already in one
		become(argv);
		return exec_failed(argv);
	case 'G': { // go: oom_score_adj, extra arguments
		const char *score = reply + 1;
		raise_oom_score(score);
		char **full = insert(argv, score + strlen(score) + 1, end);
		if (full == NULL)
			return fail(EXIT_SANDRUN, "the supervisor's answer does not fit");
		become(full);
		int e = errno;
		if (send(fd, &e, sizeof e, MSG_NOSIGNAL) < 0) {
			// The supervisor sees the end of this process all the same.
		}
		errno = e;
		return exec_failed(argv);
	}
	case 'E': // exit code, text
		return fail(n > 1 ? (unsigned char)reply[1] : EXIT_SANDRUN, "%s", n > 2 ? reply + 2 : "refused");
	default:
		return fail(EXIT_SANDRUN, "the supervisor speaks another protocol: use the sandrun that started the run");
	}
}

// worker_args parses `sandrun worker [--label L] [--] CMD...`. It returns CMD, or
// NULL for everything that the Go side handles: --help, and mistakes.
static char **worker_args(char **argv, const char **label)
{
	for (char **a = argv; *a != NULL; a++) {
		if (strcmp(*a, "--") == 0)
			return a[1] != NULL ? a + 1 : NULL;
		if (strncmp(*a, "--label=", 8) == 0)
			*label = *a + 8;
		else if (strcmp(*a, "--label") == 0 && a[1] != NULL)
			*label = *++a;
		else
			return **a == '-' ? NULL : a;
	}
	return NULL;
}

__attribute__((constructor(101))) static void sandrun_shim(int argc, char **argv, char **envp)
{
	if (argc < 2 || argv == NULL || argv[0] == NULL)
		return;
	environ = envp;
	const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
	const char *socket_path = getenv("SANDRUN_SOCK");

	if (strcmp(name, "go-exec") == 0) {
		// Without a run, the hook in somebody's GOFLAGS does nothing.
		if (socket_path != NULL && *socket_path != 0)
			_exit(shim(socket_path, name, "", argv + 1));
		become(argv + 1);
		_exit(exec_failed(argv + 1));
	}
	if (strcmp(name, "sandrun") == 0 && strcmp(argv[1], "worker") == 0 && socket_path != NULL && *socket_path != 0) {
		const char *label = "";
		char **command = worker_args(argv + 2, &label);
		if (command != NULL)
			_exit(shim(socket_path, "worker", label, command));
	}
}
