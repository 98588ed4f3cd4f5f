# The CUDA plug-in, libhearth_cuda.so: opened at run time where it lies beside the program or in lib/hearth
# (device/plugin.h), so that one program runs on hosts with and without a GPU. Without nvcc everything else is built.
set(HEARTH_CUDA AUTO CACHE STRING "Build the CUDA plug-in: ON, OFF, or AUTO: where nvcc is")
# What one GPU runs is compiled in a minute on two cores; all that NVIDIA sells takes seven. A GPU newer than the newest
# one translates the intermediate code (PTX) when it first starts.
set(HEARTH_CUDA_ARCHITECTURES 80 CACHE STRING
    "Compute capabilities to compile for, as 80;90, the newest as PTX too; all: those that packages have")
set(cuda_all 75 80 86 89 90 100 120)

# Copies of the rooms that a device needs, of the plug-in's own: position-independent, and nobody else sees them. It
# computes on the host with the kernels that the program gives it.
set(shared)
foreach(folder base model sparsity kernels device)
    file(GLOB found CONFIGURE_DEPENDS ${folder}/*.[ch] ${folder}/families/*.[ch])
    list(APPEND shared ${found})
endforeach()
set(sources ${shared})
list(FILTER sources INCLUDE REGEX "\\.c$")
list(FILTER sources EXCLUDE REGEX ${other_way})
list(FILTER sources EXCLUDE REGEX "device/plugin\\.c$") # the program's side
add_library(plugin_rooms STATIC EXCLUDE_FROM_ALL ${sources})
set_target_properties(plugin_rooms PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
target_link_libraries(plugin_rooms PUBLIC hearth_settings Threads::Threads m PkgConfig::PCRE2 PkgConfig::XXHASH)

# Both say from which source that is: one that was built from other files is refused.
add_custom_command(OUTPUT device_shared.c
    COMMAND ${CMAKE_COMMAND} -D OUT=device_shared.c -P ${PROJECT_SOURCE_DIR}/cmake/shared_hash.cmake ${shared}
    DEPENDS ${shared} cmake/shared_hash.cmake VERBATIM)
add_library(device_shared STATIC device_shared.c)
set_target_properties(device_shared PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(device_shared PRIVATE hearth_settings)
target_link_libraries(device PUBLIC device_shared)
target_link_libraries(plugin_rooms PUBLIC device_shared)

set(nvcc NOTFOUND)
if(HEARTH_CUDA STREQUAL "ON" OR (HEARTH_CUDA STREQUAL "AUTO" AND NOT HEARTH_SANITIZE AND NOT HEARTH_FUZZ))
    find_program(HEARTH_NVCC nvcc HINTS ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
    if(HEARTH_NVCC AND NOT CMAKE_CUDA_COMPILER)
        set(CMAKE_CUDA_COMPILER ${HEARTH_NVCC})
    endif()
    include(CheckLanguage)
    check_language(CUDA)
    set(nvcc ${CMAKE_CUDA_COMPILER})
    if(NOT nvcc AND HEARTH_CUDA STREQUAL "ON")
        message(FATAL_ERROR "HEARTH_CUDA=ON, and there is no nvcc that works: install the CUDA toolkit, or set "
                            "CMAKE_CUDA_COMPILER")
    endif()
endif()
if(NOT nvcc)
    message(STATUS "CUDA plug-in: not built (HEARTH_CUDA=${HEARTH_CUDA})")
    return()
endif()

set(architectures ${HEARTH_CUDA_ARCHITECTURES})
if(architectures STREQUAL "all")
    set(architectures ${cuda_all})
endif()
list(GET architectures -1 newest)
list(TRANSFORM architectures APPEND -real)
set(CMAKE_CUDA_ARCHITECTURES ${architectures} ${newest}-virtual)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
find_package(CUDAToolkit REQUIRED)
message(STATUS "CUDA plug-in: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")

# The kernels. Law 3: nothing is contracted, flushed or approximated.
file(GLOB sources CONFIGURE_DEPENDS kernels/cuda/*.cu)
add_library(kernels_cuda STATIC ${sources})
set_target_properties(kernels_cuda PROPERTIES
    POSITION_INDEPENDENT_CODE ON CUDA_VISIBILITY_PRESET hidden CUDA_EXTENSIONS OFF)
target_include_directories(kernels_cuda PRIVATE ${PROJECT_SOURCE_DIR})
set(host_options -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -ffp-contract=off
    -fno-strict-aliasing)
list(JOIN host_options "," host_options)
target_compile_options(kernels_cuda PRIVATE
    -fmad=false -ftz=false -prec-div=true -prec-sqrt=true
    $<$<BOOL:${HEARTH_WERROR}>:-Werror=all-warnings>
    "SHELL:-Xcompiler=${host_options}")

# The device.
file(GLOB sources CONFIGURE_DEPENDS device/cuda/*.c)
list(FILTER sources EXCLUDE REGEX "/plugin\\.c$")
add_library(device_cuda STATIC ${sources})
set_target_properties(device_cuda PROPERTIES
    POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden LINKER_LANGUAGE C)
target_link_libraries(device_cuda PUBLIC hearth_settings kernels_cuda CUDA::cudart_static)

add_library(hearth_cuda MODULE device/cuda/plugin.c)
set_target_properties(hearth_cuda PROPERTIES C_VISIBILITY_PRESET hidden LINKER_LANGUAGE CUDA)
target_link_libraries(hearth_cuda PRIVATE device_cuda plugin_rooms)
target_link_options(hearth_cuda PRIVATE
    LINKER:--no-undefined,--as-needed,--exclude-libs,ALL -static-libgcc -static-libstdc++)
install(TARGETS hearth_cuda LIBRARY DESTINATION lib/hearth)

# tests/gpu with the real runtime, for a machine with a GPU; `cmake --build ... --target cuda_tests`. Over a stand-in
# for the GPU the same tests are run everywhere (cmake/gpu_tests.cmake).
include(CTest)
if(BUILD_TESTING)
    add_test(NAME cuda_no_driver COMMAND sh ${PROJECT_SOURCE_DIR}/tests/gpu/no_driver_test.sh $<TARGET_FILE:hearth>
        $<TARGET_FILE_DIR:hearth_cuda> ${PROJECT_SOURCE_DIR}/tests/vectors)
    set_tests_properties(cuda_no_driver PROPERTIES LABELS gpu SKIP_RETURN_CODE 77)
    add_custom_target(cuda_tests DEPENDS hearth hearth_cuda)
    function(cuda_program name)
        add_executable(cuda_${name} EXCLUDE_FROM_ALL ${ARGN})
        set_target_properties(cuda_${name} PROPERTIES LINKER_LANGUAGE CUDA)
        target_include_directories(cuda_${name} PRIVATE ${PROJECT_SOURCE_DIR})
        target_compile_definitions(cuda_${name} PRIVATE TEST_DATA="tests/vectors") # run where these are
        target_link_libraries(cuda_${name} PRIVATE
            device_cuda suites synth ${rooms} PkgConfig::CMOCKA PkgConfig::JANSSON)
        add_dependencies(cuda_tests cuda_${name})
    endfunction()
    file(GLOB sources CONFIGURE_DEPENDS tests/gpu/*_test.c)
    foreach(source ${sources})
        get_filename_component(name ${source} NAME_WE)
        cuda_program(${name} ${source} tests/gpu/memory.c)
    endforeach()
    # How fast kernels are.
    file(GLOB sources CONFIGURE_DEPENDS tests/gpu/speed/*.c)
    cuda_program(speed ${sources})
endif()
