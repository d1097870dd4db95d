// Exceptions through several frames with destructors, rethrown, of several types, out of virtual calls.
#include <cstdio>
#include <stdexcept>
#include <string>

static int destroyed;

struct Guard {
    int weight;
    explicit Guard(int w) : weight(w) {}
    ~Guard() { destroyed += weight; }
};

struct Shape {
    virtual ~Shape() = default;
    virtual int area(int n) const = 0;
};
struct Square : Shape {
    int area(int n) const override {
        if (n == 3) throw std::runtime_error("three");
        return n * n;
    }
};
struct Line : Shape {
    int area(int n) const override {
        if (n % 2) throw n;
        return 0;
    }
};

__attribute__((noinline)) static int descend(const Shape &shape, int depth, int n) {
    Guard guard(depth + 1);
    return depth ? descend(shape, depth - 1, n) + 1 : shape.area(n);
}

int main() {
    Square square;
    Line line;
    int sum = 0;
    for (int i = 0; i < 6; i++) {
        const Shape &shape = i % 2 ? static_cast<const Shape &>(line) : square;
        try {
            try {
                sum += descend(shape, 3, i / 2 + 1);
            } catch (int n) {
                sum += 100 * n;
                throw std::string("again");
            }
        } catch (const std::exception &e) {
            sum += e.what()[0];
        } catch (const std::string &s) {
            sum += static_cast<int>(s.size());
        }
    }
    std::printf("%d %d\n", sum, destroyed);
    return sum % 120;
}
