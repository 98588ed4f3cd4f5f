# Debian packages; docs/dependencies.md says why each.
option(HEARTH_MPI "Ranks on several PCs, by MPI and RDMA; OFF: one PC, and a program that needs little more than libc"
    ON)
if(NOT HEARTH_MPI)
    set(CMAKE_FIND_LIBRARY_SUFFIXES .a) # what is linked becomes part of the program
    set(BUILD_TESTING OFF)              # tests are of all that hearth can do
endif()

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.40) # from there on scripts by name: \p{sc:Han}
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(OPENBLAS REQUIRED openblas) # its headers alone
if(HEARTH_MPI)
    find_package(MPI REQUIRED COMPONENTS C)
    pkg_check_modules(IBVERBS REQUIRED IMPORTED_TARGET libibverbs)
    pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
    pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd)
    pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl>=7.85)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
    set(network MPI::MPI_C PkgConfig::IBVERBS)
    set(cores PkgConfig::HWLOC)
    set(http PkgConfig::MICROHTTPD)
    set(http_client PkgConfig::CURL)
    set(other_way "/(no_mpi|no_http|cores_linux)\\.c$") # the files that stand in the place of ours in the other build
else()
    # No HTTP either: its libraries need GnuTLS, and that others of which Debian has no archives.
    set(other_way "/(mpi|network|verbs[a-z_]*|cores_hwloc|http[a-z_]*|serve/serve|cli/serve|chat_url)\\.c$")
endif()
