/* fork with a pipe, wait statuses, vfork and exec, posix_spawn, system, popen, a death by signal seen by the parent. */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc > 1) { /* what the others exec */
        printf("%s %s\n", argv[1], getenv("GUEST_WORD") ? getenv("GUEST_WORD") : "-");
        return atoi(argv[1]);
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    int fds[2], status, result = 0;
    char text[64] = "";
    if (pipe(fds)) return 90;
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        dup2(fds[1], 1);
        for (int i = 0; i < 3; i++) printf("%d,", i * i);
        _exit(11);
    }
    close(fds[1]);
    size_t got = 0;
    for (ssize_t n; (n = read(fds[0], text + got, sizeof text - 1 - got)) > 0;) got += (size_t)n;
    waitpid(child, &status, 0);
    printf("piped %s %d\n", text, WEXITSTATUS(status));
    result += WEXITSTATUS(status);
    child = vfork();
    if (child == 0) {
        execl(argv[0], argv[0], "12", (char *)NULL);
        _exit(91);
    }
    waitpid(child, &status, 0);
    result += WEXITSTATUS(status);
    char *arguments[] = {argv[0], "13", NULL};
    setenv("GUEST_WORD", "spawned", 1);
    if (posix_spawn(&child, argv[0], NULL, NULL, arguments, environ)) return 92;
    waitpid(child, &status, 0);
    result += WEXITSTATUS(status);
    status = system("echo from the shell; exit 14");
    result += WEXITSTATUS(status);
    FILE *p = popen("echo popened", "r");
    if (!p || !fgets(text, sizeof text, p)) return 93;
    pclose(p);
    fputs(text, stdout);
    child = fork();
    if (child == 0) {
        raise(SIGKILL);
        _exit(94);
    }
    waitpid(child, &status, 0);
    printf("killed %d %d\n", WIFSIGNALED(status), WTERMSIG(status));
    child = fork();
    if (child == 0) execl("/nonexistent", "x", (char *)NULL), _exit(15);
    waitpid(child, &status, 0);
    return result + WEXITSTATUS(status);
}
