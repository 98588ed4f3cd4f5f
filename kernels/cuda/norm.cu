/* Norms, alone, of what sums have just been added to, or of sums that are then added. A thread block has a token: its
 * threads keep the token's values, and lay them into shared memory for the 128 lanes of the sums, which have an
 * order. */
#include "kernels/cuda/stream.cuh"

namespace {

enum {
    THREADS = 256,
    TURN = THREADS * FOUR, /* values that the threads hold at a time */
    TURNS_LAID = 8,        /* as many of these as lie in shared memory together */
};
static_assert(TURN % NORM_LANES == 0, "lanes continue from turn to turn");

struct norming {
    struct gpu_norm norm;
    const float *x;
    const uint32_t *tokens;
    struct acts out;
    struct gpu_fault fault;
};

__device__ __forceinline__ void load_whole(const float *from, float to[FOUR])
{
    const float4 v = *(const float4 *)from;
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

__device__ __forceinline__ void load_whole(const long long *from, long long to[FOUR])
{
    const longlong2 low = ((const longlong2 *)from)[0], high = ((const longlong2 *)from)[1];
    to[0] = low.x, to[1] = low.y, to[2] = high.x, to[3] = high.y;
}

/* Values [i, i + 4) of a vector of d; zeros past its end. At once where d leaves every vector on 16 bytes. */
template <class V> __device__ __forceinline__ void load_four(const V *from, int i, int d, V to[FOUR])
{
    if (d % FOUR == 0 && i < d) {
        load_whole(from + i, to);
        return;
    }
    for (int k = 0; k < FOUR; k++)
        to[k] = i + k < d ? from[i + k] : (V)0;
}

__device__ __forceinline__ void store_four(float *to, int i, int d, const float v[FOUR])
{
    if (d % FOUR == 0 && i < d) {
        *(float4 *)(to + i) = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
    for (int k = 0; k < FOUR; k++)
        if (i + k < d)
            to[i + k] = v[k];
}

/* What a thread keeps of the vector. */
template <int TURNS> struct held {
    float v[TURNS][FOUR];
};

/* Where the threads of a block meet. */
template <int TURNS> struct __align__(16) room {
    static constexpr int turns = TURNS < TURNS_LAID ? TURNS : TURNS_LAID; /* laid out at once */
    float laid[turns * TURN], lanes[NORM_LANES];
};

/* lane + v, or lane + v * v, over a lane's values of the vector, n of them laid out. */
template <bool SQUARES> __device__ __forceinline__ float add_lane(const float *laid, int n, float lane)
{
#pragma unroll 8
    for (int i = 0; i < n; i++) {
        const float v = laid[i * NORM_LANES];
        lane = SQUARES ? __fmaf_rn(v, v, lane) : __fadd_rn(lane, v);
    }
    return lane;
}

/* The 128 lanes pairwise, 64 apart, then 32, ...: every warp does it for itself. */
__device__ __forceinline__ float add_lanes(const float lanes[NORM_LANES])
{
    const int i = threadIdx.x % LANES;
    float sum = __fadd_rn(__fadd_rn(lanes[i], lanes[i + 64]), __fadd_rn(lanes[i + 32], lanes[i + 96]));
    for (int n = LANES / 2; n > 0; n /= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(FULL_MASK, sum, n));
    return sum;
}

/* The sum of what the threads hold, or of its squares. Zeros past the vector's end change no bit: a sum from +0 is
 * never -0. */
template <bool SQUARES, int TURNS>
__device__ __forceinline__ float sum_of(const struct held<TURNS> &x, struct room<TURNS> &room)
{
    float lane = 0;
#pragma unroll
    for (int begin = 0; begin < TURNS; begin += room.turns) {
        __syncthreads(); /* what lay there has been read */
#pragma unroll
        for (int j = 0; j < room.turns; j++) {
            const float *v = x.v[begin + j];
            *(float4 *)&room.laid[j * TURN + FOUR * threadIdx.x] = make_float4(v[0], v[1], v[2], v[3]);
        }
        __syncthreads();
        if (threadIdx.x < NORM_LANES)
            lane = add_lane<SQUARES>(room.laid + threadIdx.x, room.turns * (TURN / NORM_LANES), lane);
    }
    if (threadIdx.x < NORM_LANES)
        room.lanes[threadIdx.x] = lane;
    __syncthreads();
    return add_lanes(room.lanes);
}

__device__ __forceinline__ int place_of(int turn) { return turn * TURN + FOUR * (int)threadIdx.x; }

/* x - mean; past the vector's end zeros stay. */
template <int TURNS> __device__ __forceinline__ void centre(struct held<TURNS> &x, struct room<TURNS> &room, int d)
{
    const float mean = __fdiv_rn(sum_of<false>(x, room), __int2float_rn(d));
    for (int j = 0; j < TURNS; j++)
        for (int k = 0; k < FOUR; k++)
            x.v[j][k] = place_of(j) + k < d ? __fsub_rn(x.v[j][k], mean) : 0.0f;
}

/* Stores four values of what the norm gives, and quantises them. */
__device__ __forceinline__ void store_normed(const struct norming &w, int i, const float v[FOUR])
{
    const int d = (int)w.norm.d;
    const int64_t token = (int64_t)blockIdx.x * d;
    store_four(w.out.f32 + token, i, d, v);
    bool numbers = true;
    for (int k = 0; k < FOUR; k++)
        numbers = numbers && gpu_is_number(v[k]);
    for (int k = 0; k < FOUR && !numbers; k++)
        if (i + k < d && !gpu_is_number(v[k]))
            gpu_note(w.fault, (uint32_t)(token + i + k));
    if (w.norm.quantise)
        quantise_four(w.out, token + i, v, i >= d);
}

/* Asks for the norm's weights while the launch before ends. */
template <int TURNS> __device__ __forceinline__ void ask_for_weights(const struct norming &w)
{
    for (int j = 0; j < TURNS; j++)
        if (w.norm.w && place_of(j) < w.norm.d)
            gpu_prefetch(w.norm.w + place_of(j));
}

/* x = its norm, four values after four, each of which is given to store(j, values). */
template <int TURNS, typename STORE>
__device__ __forceinline__ void norm_held(const struct gpu_norm &norm, struct held<TURNS> &x, const STORE &store)
{
    const int d = (int)norm.d;
    __shared__ struct room<TURNS> room;
    struct held<TURNS> weight;
#pragma unroll
    for (int j = 0; j < TURNS; j++) /* on their way while sums are formed */
        load_four(norm.w, place_of(j), d, weight.v[j]);
    if (!norm.rms)
        centre(x, room, d);
    const float mean = __fdiv_rn(sum_of<true>(x, room), __int2float_rn(d));
    const float s = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, norm.eps)));
    const bool biased = !norm.rms && norm.b;
#pragma unroll
    for (int j = 0; j < TURNS; j++) {
        float v[FOUR], b[FOUR] = {};
        if (biased)
            load_four(norm.b, place_of(j), d, b);
        for (int k = 0; k < FOUR; k++) {
            const float scaled = __fmul_rn(x.v[j][k], s);
            v[k] = biased ? __fmaf_rn(scaled, weight.v[j][k], b[k]) : __fmul_rn(scaled, weight.v[j][k]);
        }
        store(j, v);
    }
}

/* The norm of what the threads hold becomes what a block reads. */
template <int TURNS> __device__ __forceinline__ void give_normed(const struct norming &w, struct held<TURNS> &x)
{
    const auto store = [&](int j, const float v[FOUR]) { store_normed(w, place_of(j), v); };
    if (w.norm.w) {
        norm_held(w.norm, x, store);
        return;
    }
#pragma unroll
    for (int j = 0; j < TURNS; j++)
        store(j, x.v[j]);
}

template <int TURNS> __global__ void __launch_bounds__(THREADS) norm(struct norming w)
{
    struct held<TURNS> held;
    ask_for_weights<TURNS>(w);
    gpu_begin();
    const float *x = w.x + (w.tokens ? w.tokens[blockIdx.x] : blockIdx.x) * w.norm.d;
#pragma unroll
    for (int j = 0; j < TURNS; j++)
        load_four(x, place_of(j), (int)w.norm.d, held.v[j]);
    give_normed(w, held);
}

/* Four values of x, once what is to be added to them has been. */
__device__ __forceinline__ void add_four(const struct adding &a, int i, int d, float x[FOUR])
{
    const int64_t token = (int64_t)blockIdx.x * d;
    long long units[FOUR];
    float bias[FOUR] = {}, y[FOUR] = {};
    load_four(a.units + token, i, d, units);
    load_four(a.x + token, i, d, x);
    if (a.a.bias)
        load_four(a.a.bias, i, d, bias);
    if (a.a.y)
        load_four(a.a.y + token, i, d, y);
    for (int k = 0; k < FOUR; k++) {
        const float sum = sum_of_units(units[k], i + k == 0 && a.broken[blockIdx.x]);
        x[k] = i + k < d ? added(a, token + i + k, x[k], sum, bias[k], y[k]) : 0.0f;
    }
    store_four(a.x + token, i, d, x);
}

template <int TURNS> __global__ void __launch_bounds__(THREADS) add_norm(struct adding a, struct norming w)
{
    struct held<TURNS> held;
    ask_for_weights<TURNS>(w);
    gpu_begin();
#pragma unroll
    for (int j = 0; j < TURNS; j++)
        add_four(a, place_of(j), (int)w.norm.d, held.v[j]);
    give_normed(w, held);
}

/* Four sums, and the bias. */
__device__ __forceinline__ void sum_four(const struct adding &a, int i, int d, float to[FOUR])
{
    long long units[FOUR];
    float bias[FOUR] = {};
    load_four(a.units + (int64_t)blockIdx.x * d, i, d, units);
    if (a.a.bias)
        load_four(a.a.bias, i, d, bias);
    for (int k = 0; k < FOUR; k++) {
        const float sum = sum_of_units(units[k], i + k == 0 && a.broken[blockIdx.x]);
        to[k] = a.a.bias ? __fadd_rn(sum, bias[k]) : sum;
    }
}

/* Adds four values of the sums' norm to x, or where they wait puts them into y. */
__device__ __forceinline__ void add_values(const struct adding &a, int i, int d, const float v[FOUR])
{
    const int64_t token = (int64_t)blockIdx.x * d;
    float x[FOUR], y[FOUR] = {};
    load_four(a.x + token, i, d, x);
    if (a.a.y)
        load_four(a.a.y + token, i, d, y);
    for (int k = 0; k < FOUR; k++)
        x[k] = i + k < d ? added(a, token + i + k, x[k], v[k], 0, y[k]) : 0.0f;
    store_four((a.a.waits ? a.a.y : a.x) + token, i, d, x);
}

template <int TURNS> __global__ void __launch_bounds__(THREADS) norm_add(struct adding a, struct gpu_norm norm)
{
    struct held<TURNS> held;
    gpu_begin();
#pragma unroll
    for (int j = 0; j < TURNS; j++)
        sum_four(a, place_of(j), (int)norm.d, held.v[j]);
    a.a.bias = NULL; /* it is in there */
    norm_held(norm, held, [&](int j, const float v[FOUR]) { add_values(a, place_of(j), (int)norm.d, v); });
}

template <int N> struct count_t {
    static constexpr int value = N;
};

/* Calls f with as many turns as a vector of d takes. */
template <typename F> void with_turns(int64_t d, F &&f)
{
    if (d <= TURN)
        f(count_t<1>());
    else if (d <= 2 * TURN)
        f(count_t<2>());
    else if (d <= 4 * TURN)
        f(count_t<4>());
    else if (d <= 8 * TURN)
        f(count_t<8>());
    else
        f(count_t<16>());
}
static_assert(GPU_NORM_MOST <= 16 * TURN, "a norm's vector fits");

}

void gpu_norm(const struct gpu *g, const struct gpu_norm *n, const float *x, const uint32_t *tokens, int64_t n_tokens,
              const struct acts *out, struct gpu_fault fault)
{
    const struct norming w = {*n, x, tokens, *out, fault};
    if (n_tokens > 0)
        with_turns(n->d, [&](auto turns) {
            LAUNCH((norm<decltype(turns)::value>), (unsigned)n_tokens, THREADS, 0, g, w);
        });
}

void add_normed(const struct gpu *g, const struct adding &w, int64_t n, int64_t d)
{
    struct gpu_norm norm = {};
    struct adding a = w;
    norm.rms = true;
    norm.eps = w.a.eps;
    norm.d = d;
    norm.w = w.a.norm;
    a.a.scale = 1;
    with_turns(d, [&](auto turns) {
        LAUNCH((norm_add<decltype(turns)::value>), (unsigned)n, THREADS, 0, g, a, norm);
    });
}

void gpu_add_norm(const struct gpu *g, const struct gpu_sums *sums, const struct gpu_addition *a,
                  struct gpu_fault added, const struct gpu_norm *n, int64_t n_tokens, float *x, const struct acts *out,
                  struct gpu_fault fault)
{
    const struct adding adding = {sums->units, sums->broken, *a, x, added};
    const struct norming w = {*n, x, NULL, *out, fault};
    if (n_tokens > 0)
        with_turns(n->d, [&](auto turns) {
            LAUNCH((add_norm<decltype(turns)::value>), (unsigned)n_tokens, THREADS, 0, g, adding, w);
        });
}
