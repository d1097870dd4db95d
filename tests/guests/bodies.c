/* Floating point, scalar: five bodies that attract each other. argv[1] scales it: 10^5 steps a round. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BODIES 5
#define STEPS 100000

struct body { double x[3], v[3], mass; };
static struct body bodies[BODIES];

static void step(double dt) {
    for (int i = 0; i < BODIES; i++)
        for (int j = i + 1; j < BODIES; j++) {
            double d[3], square = 0;
            for (int k = 0; k < 3; k++) d[k] = bodies[i].x[k] - bodies[j].x[k], square += d[k] * d[k];
            double pull = dt / (square * sqrt(square));
            for (int k = 0; k < 3; k++) {
                bodies[i].v[k] -= d[k] * bodies[j].mass * pull;
                bodies[j].v[k] += d[k] * bodies[i].mass * pull;
            }
        }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++) bodies[i].x[k] += dt * bodies[i].v[k];
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 1, steps = argc > 2 ? atoi(argv[2]) : STEPS;
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) bodies[i].x[k] = (i + 1) * (k + 2) % 7 + i, bodies[i].v[k] = (i * k % 3) * 0.1;
        bodies[i].mass = 1.0 / (i + 1);
    }
    for (int round = 0; round < rounds; round++)
        for (int n = 0; n < steps; n++) step(0.001);
    double sum = 0;
    for (int i = 0; i < BODIES; i++) sum += bodies[i].x[0] + bodies[i].v[1];
    printf("%.6f\n", sum);
    return 17;
}
