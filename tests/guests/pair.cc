// Exceptions in two threads at once, counted together.
#include <atomic>
#include <cstdio>
#include <stdexcept>
#include <thread>
#include <vector>

static std::atomic<int> caught;

static void work(int id) {
    std::vector<int> values;
    for (int i = 0; i < 200; i++) {
        try {
            values.push_back(i);
            if (i % 3 == id) throw std::out_of_range("third");
            (void)values.at(static_cast<std::size_t>(i + (i % 5 == 0)));
        } catch (const std::out_of_range &) {
            caught++;
        }
    }
}

int main() {
    std::thread one(work, 1), two(work, 2);
    one.join();
    two.join();
    std::printf("%d\n", caught.load());
    return 9;
}
