/* A launch: SIMT_LAUNCH(overlaps, kernel, grid, block, bytes of dynamic shared memory, stream, arguments...). Arguments
 * become the kernel's parameters where the launch is, as in kernel<<<...>>>(...). A launch is called by its file and
 * kernel. overlaps: it may begin before the one before it ends; its threads call simt_begin. */
#ifndef SIMT_LAUNCH_H
#define SIMT_LAUNCH_H

#include <string.h>
#include <tuple>
#include <type_traits>

#include <simt_vectors.h>

template <class... P> struct simt_kernel {
    void (*kernel)(P...);

    struct call {
        void (*kernel)(P...);
        std::tuple<P...> arguments;
    };
    static void run(const void *p)
    {
        const call *c = (const call *)p;
        std::apply(c->kernel, c->arguments);
    }
    void launch(bool overlaps, const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                P... arguments) const
    {
        static_assert(((std::is_trivially_copyable<P>::value && !std::is_reference<P>::value) && ...),
                      "a kernel's parameters are copied byte by byte");
        static_assert(alignof(call) <= 16, "no parameter is aligned to more than 16 bytes");
        const char *folder = strrchr(name, '/');
        const call c = {kernel, std::tuple<P...>(arguments...)};
        name = folder ? folder + 1 : name;
        const struct simt_task l = {name, (const void *)kernel, grid, block, shared_bytes, run, &c, sizeof c, overlaps};
        simt_launch(&l, stream);
    }
};
template <class... P> static inline simt_kernel<P...> simt_kernel_of(void (*kernel)(P...)) { return {kernel}; }

#define SIMT_LAUNCH(overlaps, kernel, grid, block, shared_bytes, stream, ...) \
    simt_kernel_of(kernel).launch(overlaps, __FILE__ " " #kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

/* The launch's dynamic shared memory, as an array of bytes. */
#define SHARED_BYTES(name) unsigned char *const name = simt_dynamic_shared()

template <class F> static inline cudaError_t cudaFuncSetAttribute(F *kernel, enum cudaFuncAttribute a, int value)
{
    return cudaFuncSetAttribute((const void *)kernel, a, value);
}

#endif
