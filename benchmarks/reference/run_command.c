/* run_command PROGRAM ARGUMENT...: runs it with its output thrown away and prints its wall time in
 * nanoseconds and its peak resident set in KiB.
 *
 * A program of its own, because Linux counts what the parent had resident before exec() as the
 * child's: started from Python every small program would seem as big as Python. */
#define _GNU_SOURCE
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv)
{
    posix_spawn_file_actions_t quiet;
    struct rusage usage;
    pid_t child;
    int status;

    if (argc < 2)
        return 2;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    int64_t start = monotonic_ns();
    errno = posix_spawnp(&child, argv[1], &quiet, NULL, argv + 1, environ);
    if (errno)
        fail(argv[1]);
    if (wait4(child, &status, 0, &usage) < 0)
        fail("wait4");
    int64_t end = monotonic_ns();
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return 1;
    printf("%lld %ld\n", (long long)(end - start), usage.ru_maxrss);
    return 0;
}
