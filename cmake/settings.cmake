# What every target is compiled with.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_C_FLAGS_RELEASE "-O2")

option(HEARTH_WERROR "Warnings are errors" ON)
set(HEARTH_SANITIZE "" CACHE STRING "address (with undefined), thread, or nothing")
option(HEARTH_FUZZ "Build the libFuzzer targets (clang)" OFF)

add_library(hearth_settings INTERFACE)
target_include_directories(hearth_settings INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(hearth_settings INTERFACE _GNU_SOURCE HEARTH_VERSION="${PROJECT_VERSION}")
# No contraction: a product and a sum are two roundings unless the code says fma (law 3).
set(options -ffp-contract=off -fno-strict-aliasing -Wall -Wextra "$<$<BOOL:${HEARTH_WERROR}>:-Werror>")
target_compile_options(hearth_settings INTERFACE
    "$<$<COMPILE_LANGUAGE:C>:${options};-Wshadow;-Wstrict-prototypes;-Wmissing-prototypes>"
    "$<$<COMPILE_LANGUAGE:CXX>:${options}>")

if(HEARTH_SANITIZE STREQUAL "address")
    # bounds-strict: of an array at the end of a struct too.
    set(sanitize -fsanitize=address,undefined $<$<C_COMPILER_ID:GNU>:-fsanitize=bounds-strict>
        -fno-sanitize-recover=all -fno-omit-frame-pointer)
elseif(HEARTH_SANITIZE STREQUAL "thread")
    set(sanitize -fsanitize=thread)
elseif(HEARTH_SANITIZE)
    message(FATAL_ERROR "HEARTH_SANITIZE is '${HEARTH_SANITIZE}'; it takes address or thread")
endif()
if(HEARTH_FUZZ)
    list(APPEND sanitize -fsanitize=fuzzer-no-link,address,undefined)
endif()
if(HEARTH_SANITIZE)
    # A compiler takes twice the time for what helps a debugger alone (where each variable is at each instruction) and
    # for speed, which only the scalar kernels need: tests spend their time in them (cmake/kernels.cmake).
    # At -O1 gcc knows no ranges of numbers, and warns of any that is printed; other builds do know.
    list(APPEND sanitize -O1 -g1 $<$<C_COMPILER_ID:GNU>:-fno-var-tracking-assignments>
        $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>)
endif()
target_compile_options(hearth_settings INTERFACE ${sanitize})
target_link_options(hearth_settings INTERFACE ${sanitize})
