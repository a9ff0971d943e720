// A 3x3 convolution with a padding of 1 and a stride of 1, and its gradients, for images in channels_last, by
// Winograd's minimal filtering: Lavin & Gray 2016 (1509.09308), section 4, F(4x4, 3x3).
//
// convolution.py calls it. A tile of 4x4 outputs y sees 6x6 inputs d, and with the matrices A, B and G of that paper
//
//     y = At [(G g Gt) * (Bt d B)] A
//
// for one input channel, one output channel and their 3x3 weights g: 36 products, at the 36 places of a 6x6 matrix,
// instead of 144. The gradient of g follows by the chain rule: Gt [(A dy At) * (Bt d B)] G. Sums over input channels,
// or over tiles, come before the last step, so that at each place there is one matrix product. Blocks of TILES tiles
// stay in the second cache. Sums over tiles are over whole groups of images, or one thread's at each place, so that no
// bit depends on how many threads share the work.

#include <omp.h>
#include <stdint.h>
#include <string.h>

namespace {

typedef float vec __attribute__((vector_size(32), aligned(4)));  // 8 floats
const int64_t VEC = 8, WIDE = 2 * VEC, PLACES = 36, TILES = 12, MANY_TILES = 128;

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// At each of the PLACES, `count` rows of `width` floats. No large power of two lies between rows, nor between places,
// since a cache has but a few lines for addresses that are so far apart.
struct Rows {
    int64_t count, width;
    int64_t apart = width < 256 ? width : width + WIDE, place = count * apart + WIDE, size = PLACES * place;
};

vec load(const float *from) { return *(const vec *)from; }
void store(float *to, vec value) { *(vec *)to = value; }

// Bt d
void from_inputs(const vec *d, vec *t) {
    const vec even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], outer = d[4] - d[2], twice = 2 * (d[3] - d[1]);
    t[0] = 4 * d[0] - 5 * d[2] + d[4];
    t[1] = even + odd, t[2] = even - odd;
    t[3] = outer + twice, t[4] = outer - twice;
    t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// G g
void from_weights(const vec *g, vec *t) {
    const vec near = (g[0] + g[2]) / -6, middle = g[1] / 6, far = g[0] / 24 + g[2] / 6, half = g[1] / 12;
    t[0] = g[0] / 4;
    t[1] = near - middle, t[2] = near + middle;
    t[3] = far + half, t[4] = far - half;
    t[5] = g[2];
}

// A dy
void from_gradients(const vec *dy, vec *t) {
    const vec even = dy[0] + dy[2], odd = dy[1] + dy[3], near = dy[0] + 4 * dy[2], far = 2 * dy[1] + 8 * dy[3];
    t[0] = dy[0];
    t[1] = even + odd, t[2] = even - odd;
    t[3] = near + far, t[4] = near - far;
    t[5] = dy[3];
}

// At t
void to_outputs(const vec *t, vec *y) {
    const vec sum = t[1] + t[2], difference = t[1] - t[2], far = t[3] + t[4], apart = t[3] - t[4];
    y[0] = t[0] + sum + far, y[1] = difference + 2 * apart;
    y[2] = sum + 4 * far, y[3] = difference + 8 * apart + t[5];
}

// Gt t
void to_weights(const vec *t, vec *g) {
    const vec near = (t[1] + t[2]) / 6, far = t[3] + t[4];
    g[0] = t[0] / 4 - near + far / 24;
    g[1] = (t[2] - t[1]) / 6 + (t[3] - t[4]) / 12;
    g[2] = far / 6 - near + t[5];
}

// The tiles of N images of H by W.
struct Grid {
    int64_t H, W, rows = (H + 3) / 4, cols = (W + 3) / 4, of_image = rows * cols;

    // Call f(t, n, row, col, beside) for each run of tiles that stand side by side, among `count` from `first` on: the
    // run's place among them, its image, its first tile's place in the image, and its length.
    template <class F>
    void for_runs(int64_t first, int64_t count, F f) const {
        for (int64_t t = 0, beside; t < count; t += beside) {
            const int64_t n = (first + t) / of_image, row = (first + t) / cols % rows, col = (first + t) % cols;
            beside = cols - col < count - t ? cols - col : count - t;
            f(t, n, row, col, beside);
        }
    }
};

// Bt d of one column: six rows, `steps` to the next column; beyond the W columns there is padding.
void column(const float *const *rows, const int64_t *steps, int64_t x, int64_t W, vec *t) {
    vec d[6] = {};
    if (x >= 0 && x < W)
        for (int i = 0; i < 6; i++) d[i] = load(rows[i] + x * steps[i]);
    from_inputs(d, t);
}

// v = Bt d B of `count` tiles of x (N H W C), in rows of C; padding: C zeros.
void place_inputs(const Grid &grid, const float *x, float *v, const Rows &to, const float *padding, int64_t first,
                  int64_t count) {
    const int64_t C = to.width;
    grid.for_runs(first, count, [&](int64_t run, int64_t n, int64_t row, int64_t col, int64_t beside) {
        for (int64_t c = 0; c < C; c += VEC) {
            const float *rows[6];
            int64_t steps[6];
            for (int64_t i = 0; i < 6; i++) {
                const int64_t at = 4 * row - 1 + i;
                const bool inside = at >= 0 && at < grid.H;
                rows[i] = inside ? x + (n * grid.H + at) * grid.W * C + c : padding;
                steps[i] = inside ? C : 0;
            }
            vec t[6][6];  // column, row
            for (int64_t j = 0; j < 2; j++) column(rows, steps, 4 * col - 1 + j, grid.W, t[j]);
            for (int64_t tile = 0; tile < beside; tile++) {
                for (int64_t j = 2; j < 6; j++) column(rows, steps, 4 * (col + tile) - 1 + j, grid.W, t[j]);
                for (int i = 0; i < 6; i++) {
                    const vec d[6] = {t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]};
                    vec e[6];
                    from_inputs(d, e);
                    for (int j = 0; j < 6; j++) store(v + (6 * i + j) * to.place + (run + tile) * to.apart + c, e[j]);
                    t[0][i] = d[4], t[1][i] = d[5];  // which the next tile sees, too
                }
            }
        }
    });
}

// v = A dy At of `count` tiles of dy (N H W K), in rows of K.
void place_gradients(const Grid &grid, const float *dy, float *v, const Rows &to, int64_t first, int64_t count) {
    const int64_t K = to.width;
    grid.for_runs(first, count, [&](int64_t run, int64_t n, int64_t row, int64_t col, int64_t beside) {
        const int64_t high = grid.H - 4 * row < 4 ? grid.H - 4 * row : 4;
        for (int64_t tile = 0; tile < beside; tile++) {
            const int64_t left = 4 * (col + tile), wide = grid.W - left < 4 ? grid.W - left : 4;
            const float *corner = dy + ((n * grid.H + 4 * row) * grid.W + left) * K;
            for (int64_t k = 0; k < K; k += VEC) {
                vec t[4][6] = {};  // row, column
                for (int64_t i = 0; i < high; i++) {
                    vec d[4] = {};
                    for (int64_t j = 0; j < wide; j++) d[j] = load(corner + (i * grid.W + j) * K + k);
                    from_gradients(d, t[i]);
                }
                for (int j = 0; j < 6; j++) {
                    const vec d[4] = {t[0][j], t[1][j], t[2][j], t[3][j]};
                    vec e[6];
                    from_gradients(d, e);
                    for (int i = 0; i < 6; i++) store(v + (6 * i + j) * to.place + (run + tile) * to.apart + k, e[i]);
                }
            }
        }
    });
}

// Write At m A of `count` tiles to y (N H W K), from m in rows of K.
void write_outputs(const Grid &grid, const float *m, float *y, const Rows &from, int64_t first, int64_t count) {
    const int64_t K = from.width;
    grid.for_runs(first, count, [&](int64_t run, int64_t n, int64_t row, int64_t col, int64_t beside) {
        const int64_t high = grid.H - 4 * row < 4 ? grid.H - 4 * row : 4;
        for (int64_t tile = 0; tile < beside; tile++) {
            const int64_t left = 4 * (col + tile), wide = grid.W - left < 4 ? grid.W - left : 4;
            float *corner = y + ((n * grid.H + 4 * row) * grid.W + left) * K;
            for (int64_t k = 0; k < K; k += VEC) {
                vec t[6][4];  // column, row
                for (int j = 0; j < 6; j++) {
                    vec d[6];
                    const float *of = m + (run + tile) * from.apart + k;
                    for (int i = 0; i < 6; i++) d[i] = load(of + (6 * i + j) * from.place);
                    to_outputs(d, t[j]);
                }
                for (int64_t i = 0; i < high; i++) {
                    const vec d[6] = {t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]};
                    vec e[4];
                    to_outputs(d, e);
                    for (int64_t j = 0; j < wide; j++) store(corner + (i * grid.W + j) * K + k, e[j]);
                }
            }
        }
    });
}

// u = G g Gt of w (K 3 3 C), at each place in panels of WIDE outputs, K/WIDE C WIDE; turned, the panels are
// C/WIDE K WIDE, and the taps in reverse order.
void place_weights(const float *w, float *u, int64_t C, int64_t K, int turned, int threads) {
    const int64_t inputs = turned ? K : C, outputs = turned ? C : K, place = C * K + WIDE;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t panel = 0; panel < outputs / WIDE; panel++)
        for (int64_t in = 0; in < inputs; in++)
            for (int64_t half = 0; half < WIDE; half += VEC) {
                const int64_t out = panel * WIDE + half;
                vec t[3][6];  // column, row
                for (int64_t j = 0; j < 3; j++) {
                    vec g[3] = {};
                    for (int64_t i = 0; i < 3; i++)
                        if (turned) g[i] = load(w + (in * 9 + 8 - 3 * i - j) * C + out);
                        else
                            for (int64_t n = 0; n < VEC; n++) g[i][n] = w[((out + n) * 9 + 3 * i + j) * C + in];
                    from_weights(g, t[j]);
                }
                for (int64_t i = 0; i < 6; i++) {
                    const vec g[3] = {t[0][i], t[1][i], t[2][i]};
                    vec e[6];
                    from_weights(g, e);
                    float *to = u + 6 * i * place + (panel * inputs + in) * WIDE + half;
                    for (int64_t j = 0; j < 6; j++) store(to + j * place, e[j]);
                }
            }
}

// m (M rows of WIDE) = a (M rows of C) times u (C WIDE); rows of a and of m are as far apart as stated.
template <int M>
void product(const float *a, int64_t apart_a, const float *u, float *m, int64_t apart_m, int64_t C) {
    vec low[M] = {}, high[M] = {};
    for (int64_t c = 0; c < C; c++, u += WIDE) {
        const vec first = load(u), second = load(u + VEC);
#pragma GCC unroll 6
        for (int i = 0; i < M; i++) low[i] += a[i * apart_a + c] * first, high[i] += a[i * apart_a + c] * second;
    }
    for (int i = 0; i < M; i++) store(m + i * apart_m, low[i]), store(m + i * apart_m + VEC, high[i]);
}

// Add to u (M rows of K) the transpose of a (rows of which M floats count) times b (rows of K).
template <int M>
void add_product(const float *a, const Rows &of_a, const float *b, const Rows &of_b, float *u, int64_t count) {
    const int64_t K = of_b.width;
    for (int64_t k = 0; k < K; k += WIDE) {
        vec low[M] = {}, high[M] = {};
        for (int64_t t = 0; t < count; t++) {
            const float *row = b + t * of_b.apart + k, *with = a + t * of_a.apart;
            const vec first = load(row), second = load(row + VEC);
#pragma GCC unroll 6
            for (int i = 0; i < M; i++) low[i] += with[i] * first, high[i] += with[i] * second;
        }
        for (int i = 0; i < M; i++) {
            float *row = u + i * K + k;
            store(row, load(row) + low[i]), store(row + VEC, load(row + VEC) + high[i]);
        }
    }
}

// The tiles of `weight_gradient` at a time. The sums of all places fit into the second cache for few channels, which
// are summed in groups, but are fetched from beyond it for many.
int64_t tiles_at_once(int64_t groups) { return groups > 1 ? TILES : MANY_TILES; }

}  // namespace

extern "C" {

// The floats that `convolution` needs for its work.
int64_t convolution_space(int64_t C, int64_t K, int threads) {
    return C + PLACES * (C * K + WIDE) + threads * (Rows{TILES, C}.size + Rows{TILES, K}.size);
}

// y (N H W K) from x (N H W C) and w (K 3 3 C); turned, the input's gradient y from the output's x and w (C 3 3 K).
// C and K are multiples of WIDE.
void convolution(const float *x, const float *w, float *y, float *space, int64_t N, int64_t H, int64_t W, int64_t C,
                 int64_t K, int turned, int threads) {
    const Grid grid{H, W};
    const Rows ins{TILES, C}, outs{TILES, K};
    const int64_t tiles = N * grid.of_image, blocks = (tiles + TILES - 1) / TILES, place = C * K + WIDE;
    float *padding = space, *u = space + C;
    memset(padding, 0, C * sizeof(float));
    if (turned) place_weights(w, u, K, C, turned, threads);
    else place_weights(w, u, C, K, turned, threads);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t share = 0; share < threads; share++) {
        float *v = u + PLACES * place + share * (ins.size + outs.size), *m = v + ins.size;
        for (int64_t block = blocks * share / threads; block < blocks * (share + 1) / threads; block++) {
            const int64_t first = block * TILES, count = least(TILES, tiles - first);
            place_inputs(grid, x, v, ins, padding, first, count);
            for (int64_t p = 0; p < PLACES; p++)
                for (int64_t k = 0; k < K; k += WIDE) {
                    const float *a = v + p * ins.place, *b = u + p * place + k * C;
                    float *to = m + p * outs.place + k;
                    int64_t t = 0;
                    for (; t + 6 <= count; t += 6, a += 6 * ins.apart, to += 6 * outs.apart)
                        product<6>(a, ins.apart, b, to, outs.apart, C);
                    for (; t < count; t++, a += ins.apart, to += outs.apart)
                        product<1>(a, ins.apart, b, to, outs.apart, C);
                }
            write_outputs(grid, m, y, outs, first, count);
        }
    }
}

// The floats that `weight_gradient` needs for its work.
int64_t weight_gradient_space(int64_t C, int64_t K, int64_t groups) {
    const int64_t tiles = tiles_at_once(groups);
    return C + groups * (PLACES * (C * K + WIDE) + Rows{tiles, C}.size + Rows{tiles, K}.size);
}

// dw (K 3 3 C) from x (N H W C) and dy (N H W K), C and K multiples of WIDE. Threads share the groups of images, or
// work together on the only one: first on its tiles, then at its places.
void weight_gradient(const float *x, const float *dy, float *dw, float *space, int64_t N, int64_t H, int64_t W,
                     int64_t C, int64_t K, int64_t groups, int threads) {
    const Grid grid{H, W};
    const bool together = groups == 1;
    const int64_t tiles = tiles_at_once(groups), place = C * K + WIDE;
    const Rows ins{tiles, C}, outs{tiles, K};
    const int64_t size = PLACES * place + ins.size + outs.size;
    float *padding = space, *all = space + C;
    memset(padding, 0, C * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
        const int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
        const int64_t from = together ? 0 : groups * me / team, to = together ? 1 : groups * (me + 1) / team;
        const int64_t mine = together ? me : 0, step = together ? team : 1;
        for (int64_t g = from; g < to; g++) {
            float *u = all + g * size, *v = u + PLACES * place, *d = v + ins.size;
            for (int64_t p = mine; p < PLACES; p += step) memset(u + p * place, 0, C * K * sizeof(float));
            const int64_t end = N * (g + 1) / groups * grid.of_image;
            for (int64_t first = N * g / groups * grid.of_image; first < end; first += tiles) {
                const int64_t count = least(tiles, end - first);
                for (int64_t t = mine * TILES; t < count; t += step * TILES) {
                    const int64_t part = least(TILES, count - t);
                    place_inputs(grid, x, v + t * ins.apart, ins, padding, first + t, part);
                    place_gradients(grid, dy, d + t * outs.apart, outs, first + t, part);
                }
                if (together) {
#pragma omp barrier
                }
                for (int64_t p = mine; p < PLACES; p += step) {
                    const float *a = v + p * ins.place, *b = d + p * outs.place;
                    float *sums = u + p * place;
                    int64_t c = 0;
                    for (; c + 6 <= C; c += 6) add_product<6>(a + c, ins, b, outs, sums + c * K, count);
                    for (; c < C; c += 2) add_product<2>(a + c, ins, b, outs, sums + c * K, count);
                }
                if (together) {
#pragma omp barrier
                }
            }
        }
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t c = 0; c < C; c++)
        for (int64_t k = 0; k < K; k += VEC) {
            vec t[6][3];  // row, column
            for (int64_t i = 0; i < 6; i++) {
                vec sums[6] = {};
                for (int64_t g = 0; g < groups; g++)
                    for (int64_t j = 0; j < 6; j++) sums[j] += load(all + g * size + (6 * i + j) * place + c * K + k);
                to_weights(sums, t[i]);
            }
            for (int64_t j = 0; j < 3; j++) {
                const vec sums[6] = {t[0][j], t[1][j], t[2][j], t[3][j], t[4][j], t[5][j]};
                vec e[3];
                to_weights(sums, e);
                for (int64_t i = 0; i < 3; i++)
                    for (int64_t n = 0; n < VEC; n++) dw[((k + n) * 9 + 3 * i + j) * C + c] = e[i][n];
            }
        }
}
}
