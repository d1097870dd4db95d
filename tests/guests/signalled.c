/* Children that get a signal as soon as there are any: how many of them never see it. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t seen;
static void on_signal(int number) { (void)number; seen = 1; }

int main(void) {
    int lost = 0, status;
    signal(SIGUSR1, on_signal);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            struct timespec pause = {0, 10000000};
            for (int left = 50; left && !seen; left--) nanosleep(&pause, NULL);
            _exit(!seen);
        }
        kill(child, SIGUSR1);
        waitpid(child, &status, 0);
        lost += !WIFEXITED(status) || WEXITSTATUS(status);
    }
    printf("%d lost\n", lost);
    return lost;
}
