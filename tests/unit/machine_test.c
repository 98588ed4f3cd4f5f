/* What a machine and its cgroups give, from files as systems of both cgroup versions have them, inside and outside of
 * containers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/machine.h"

#define GIB (UINT64_C(1) << 30)
#define MEMINFO "MemTotal:       16777216 kB\nMemFree:         1000000 kB\n" /* 16 GiB */
#define V1_MOUNTS \
    "24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw\n" \
    "32 24 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755\n" \
    "33 32 0:29 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd\n" \
    "37 32 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct\n" \
    "40 32 0:36 / /sys/fs/cgroup/memory rw,nosuid shared:18 - cgroup cgroup rw,memory\n"
#define V1_CGROUP "11:memory:/user.slice/job\n7:cpu,cpuacct:/user.slice/job\n1:name=systemd:/user.slice/job\n"
#define V2_MOUNTS \
    "24 30 0:22 / /proc rw,relatime - proc proc rw\n" \
    "31 24 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define UNLIMITED "9223372036854771712\n"

struct file {
    const char *path, *text;
};

/* A folder that stands for "/". */
static char root[64];

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *at)
{
    (void)s;
    (void)type;
    (void)at;
    return remove(path);
}

static void write_file(const struct file *f)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, f->path);
    for (char *c = path + strlen(root) + 1; (c = strchr(c, '/')); c++) {
        *c = '\0';
        (void)mkdir(path, 0700);
        *c = '/';
    }
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fputs(f->text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

/* What is read of a machine of these files, up to one whose path is NULL. */
static struct machine read_of(const struct file *files)
{
    struct machine m;
    strcpy(root, "/tmp/hearth-machine-XXXXXX");
    assert_non_null(mkdtemp(root));
    for (; files->path; files++)
        write_file(files);
    machine_read(root, &m);
    assert_int_equal(nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    return m;
}

static void nothing_readable_is_no_limit(void **state)
{
    (void)state;
    const struct machine m = read_of((const struct file[]){{0}});
    assert_true(m.memory_bytes == UINT64_MAX && m.limit_bytes == UINT64_MAX);
    assert_true(m.id == 0 && m.limit_id == 0 && m.cpus == 0 && m.boot_id[0] == '\0');
}

static void a_machine_without_cgroups(void **state)
{
    (void)state;
    const struct machine m = read_of((const struct file[]){
        {"proc/meminfo", MEMINFO},
        {"proc/sys/kernel/random/boot_id", "0f8e9d7c-1111-4222-8333-00000000000a\n"},
        {0}});
    assert_true(m.memory_bytes == 16 * GIB && m.limit_bytes == 16 * GIB && m.limit_id == 0 && m.cpus == 0);
    assert_string_equal(m.boot_id, "0f8e9d7c-1111-4222-8333-00000000000a");
    assert_true(m.id == (UINT64_C(0x0f8e9d7c) << 32 ^ 0xa));
}

static void a_boot_id_that_is_none_is_unknown(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "\n", "debian\n", "0f8e9d7c-1111-4222-8333\n",
                                        "0f8e9d7c-1111-4222-8333-00000000000\"\n",
                                        "------------------------------------\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const struct machine m = read_of((const struct file[]){{"proc/sys/kernel/random/boot_id", wrong[i]}, {0}});
        assert_true(m.id == 0 && m.boot_id[0] == '\0');
    }
}

/* Version 1, as systemd mounts it; the group above is the tighter one for memory. */
static void version_1_counts_all_groups_above(void **state)
{
    (void)state;
    struct file files[] = {
        {"proc/meminfo", MEMINFO},
        {"proc/self/cgroup", V1_CGROUP},
        {"proc/self/mountinfo", V1_MOUNTS},
        {"sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED},
        {"sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes", "4294967296\n"},
        {"sys/fs/cgroup/memory/user.slice/job/memory.limit_in_bytes", "8589934592\n"},
        {"sys/fs/cgroup/cpu,cpuacct/user.slice/cpu.cfs_quota_us", "-1\n"},
        {"sys/fs/cgroup/cpu,cpuacct/user.slice/cpu.cfs_period_us", "100000\n"},
        {"sys/fs/cgroup/cpu,cpuacct/user.slice/job/cpu.cfs_quota_us", "150000\n"},
        {"sys/fs/cgroup/cpu,cpuacct/user.slice/job/cpu.cfs_period_us", "100000\n"},
        {0}};
    struct machine m = read_of(files);
    assert_true(m.memory_bytes == 16 * GIB && m.limit_bytes == 4 * GIB && m.limit_id != 0 && m.cpus == 1.5);
    files[4].text = UNLIMITED;
    m = read_of(files);
    assert_true(m.limit_bytes == 8 * GIB && m.limit_id != 0);
    files[5].text = UNLIMITED;
    m = read_of(files);
    assert_true(m.limit_bytes == 16 * GIB && m.limit_id == 0);
    files[6].text = "100000\n";
    assert_true(read_of(files).cpus == 1);
}

/* Docker over version 1: the host's path, whose folder is mounted as the top. */
static void a_container_of_version_1(void **state)
{
    (void)state;
    const struct machine m = read_of((const struct file[]){
        {"proc/meminfo", MEMINFO},
        {"proc/self/cgroup", "5:memory:/docker/3f2a\n4:cpu,cpuacct:/docker/3f2a\n"},
        {"proc/self/mountinfo",
         "700 690 0:33 /docker/3f2a /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:15 - cgroup cgroup rw,cpu,cpuacct\n"
         "703 690 0:36 /docker/3f2a /sys/fs/cgroup/memory ro,nosuid master:18 - cgroup cgroup rw,memory\n"},
        {"sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"},
        {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "60000\n"},
        {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"},
        {0}});
    assert_true(m.limit_bytes == 2 * GIB && m.cpus == 0.6);
}

/* The same seen through a namespace of cgroups: paths of the process that lead nowhere here. */
static void a_path_that_is_not_mounted_means_the_top(void **state)
{
    (void)state;
    const struct machine m = read_of((const struct file[]){
        {"proc/meminfo", MEMINFO},
        {"proc/self/cgroup", "5:memory:/kubepods/burstable/pod7/ab\n"},
        {"proc/self/mountinfo",
         "703 690 0:36 /kubepods/besteffort/pod1 /mnt/other ro - cgroup cgroup rw,memory\n"
         "704 690 0:36 /kubepods/burstable/pod2 /mnt/more ro - cgroup cgroup rw,memory\n"},
        {"mnt/other/memory.limit_in_bytes", "3221225472\n"},
        {"mnt/more/memory.limit_in_bytes", "1073741824\n"},
        {0}});
    assert_true(m.limit_bytes == 3 * GIB);
}

static void version_2_counts_all_groups_above(void **state)
{
    (void)state;
    struct file files[] = {
        {"proc/meminfo", MEMINFO},
        {"proc/self/cgroup", "0::/user.slice/app.scope\n"},
        {"proc/self/mountinfo", V2_MOUNTS},
        {"sys/fs/cgroup/user.slice/memory.max", "max\n"},
        {"sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n"},
        {"sys/fs/cgroup/user.slice/app.scope/memory.max", "1073741824\n"},
        {"sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n"},
        {0}};
    struct machine m = read_of(files);
    assert_true(m.limit_bytes == GIB && m.limit_id != 0 && m.cpus == 2.5);
    files[5].text = "max\n";
    files[4].text = "max 100000\n";
    m = read_of(files);
    assert_true(m.limit_bytes == 16 * GIB && m.limit_id == 0 && m.cpus == 0);
}

/* A container of version 2 sees itself as the top, and is in no folder of what is mounted elsewhere. */
static void a_container_of_version_2(void **state)
{
    (void)state;
    const struct machine m = read_of((const struct file[]){
        {"proc/meminfo", MEMINFO},
        {"proc/self/cgroup", "0::/\n"},
        {"proc/self/mountinfo", V2_MOUNTS},
        {"sys/fs/cgroup/memory.max", "536870912\n"},
        {"sys/fs/cgroup/cpu.max", "50000 100000\n"},
        {0}});
    assert_true(m.limit_bytes == GIB / 2 && m.cpus == 0.5);
}

/* Both versions at once: the memory is version 1's, version 2 has no controllers. */
static void both_versions(void **state)
{
    (void)state;
    const struct machine m = read_of((const struct file[]){
        {"proc/meminfo", MEMINFO},
        {"proc/self/cgroup", "4:memory:/job\n1:name=systemd:/job\n0::/job\n"},
        {"proc/self/mountinfo", V1_MOUNTS "41 32 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"},
        {"sys/fs/cgroup/unified/job/cgroup.procs", "1\n"},
        {"sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1073741824\n"},
        {0}});
    assert_true(m.limit_bytes == GIB && m.cpus == 0);
}

static void nonsense_is_no_limit(void **state)
{
    (void)state;
    static const char *const lines[] = {"\n", "::\n", "0:\n", "0::\n", "4:memory\n", "4:memory:\n", "no colon"};
    static const char *const mounts[] = {"\n", " - \n", "1 2 3 - cgroup2\n", "1 2 3 / /sys/fs/cgroup rw\n",
                                         "1 2 3 / /sys/fs/cgroup rw - cgroup2\n"};
    static const char *const values[] = {"", "\n", "-5\n", "many\n", "12 apples\n"};
    for (size_t i = 0; i < 7 * 5; i++) {
        const struct machine m = read_of((const struct file[]){
            {"proc/meminfo", "MemTotal: many kB\n"}, {"proc/self/cgroup", lines[i % 7]},
            {"proc/self/mountinfo", mounts[i / 7]}, {"sys/fs/cgroup/memory.max", "1\n"}, {0}});
        assert_true(m.memory_bytes == UINT64_MAX && m.limit_bytes == UINT64_MAX);
    }
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const struct machine m = read_of((const struct file[]){
            {"proc/meminfo", MEMINFO}, {"proc/self/cgroup", "0::/\n"}, {"proc/self/mountinfo", V2_MOUNTS},
            {"sys/fs/cgroup/memory.max", values[i]}, {"sys/fs/cgroup/cpu.max", values[i]}, {0}});
        assert_true(m.limit_bytes == 16 * GIB && m.cpus == 0);
    }
}

static void this_machine(void **state)
{
    (void)state;
    struct machine m;
    machine_read("", &m);
    assert_true(m.limit_bytes > 0 && m.limit_bytes <= m.memory_bytes && m.cpus >= 0);
    assert_true((m.id != 0) == (m.boot_id[0] != '\0'));
    const uint64_t before = machine_held();
    if (!before)
        skip(); /* this kernel does not say */
    const size_t n = 64 << 20;
    char *held = malloc(n);
    assert_non_null(held);
    memset(held, 1, n);
    assert_true(machine_held() >= before + n / 2);
    free(held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_readable_is_no_limit),
        cmocka_unit_test(a_machine_without_cgroups),
        cmocka_unit_test(a_boot_id_that_is_none_is_unknown),
        cmocka_unit_test(version_1_counts_all_groups_above),
        cmocka_unit_test(a_container_of_version_1),
        cmocka_unit_test(a_path_that_is_not_mounted_means_the_top),
        cmocka_unit_test(version_2_counts_all_groups_above),
        cmocka_unit_test(a_container_of_version_2),
        cmocka_unit_test(both_versions),
        cmocka_unit_test(nonsense_is_no_limit),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
