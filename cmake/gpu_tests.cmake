# tests/gpu/NAME_test.c over the shim, which stands in for CUDA and a GPU (tests/gpu/shim/README.md): ctest
# gpu_NAME_test. The kernels are compiled as C++ for the CPU; with nvcc the same tests are programs for a machine with a
# GPU.
include(CTest)
if(NOT BUILD_TESTING OR HEARTH_FUZZ OR HEARTH_SANITIZE STREQUAL "thread" # which knows nothing of fibers
   OR NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")                # whose stacks the shim switches
    return()
endif()
enable_language(CXX)

set(optimise -O2)
if(HEARTH_SANITIZE)
    # Fibers have stacks of their own, and AddressSanitizer's stand-in for the stack knows one for a thread.
    # Registers are given out as for x86 (cmake/kernels.cmake), in half the time.
    set(optimise -O1 --param=asan-use-after-return=0 -fira-region=one)
endif()
file(GLOB sources CONFIGURE_DEPENDS tests/gpu/shim/*.c)
add_library(simt STATIC ${sources})
# gcc knows the functions of ThreadSanitizer as its own where it sanitises.
set_source_files_properties(tests/gpu/shim/race.c PROPERTIES COMPILE_OPTIONS -fno-builtin)
set_target_properties(simt PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_include_directories(simt BEFORE PUBLIC tests/gpu/shim/include)
target_compile_definitions(simt PUBLIC HEARTH_SIMT)
target_compile_options(simt PRIVATE ${optimise})
target_link_libraries(simt PUBLIC hearth_settings Threads::Threads m)
target_link_options(simt INTERFACE LINKER:-T,${PROJECT_SOURCE_DIR}/tests/gpu/shim/shared.ld)

# FOLDER/NAME.cu as C++, each through a file that includes it: to nvcc the same files are CUDA. Fused products and sums,
# and f16, are instructions here: libm's fmaf would take most of the time. Elsewhere in hearth only kernels for x86 may
# use them. Integers wrap, as a GPU's do: after a call that failed kernels may compute with any numbers, and nobody
# reads the result.
function(simt_library name)
    set(wrapped)
    foreach(source ${ARGN})
        get_filename_component(stem ${source} NAME)
        file(CONFIGURE OUTPUT ${name}/${stem}.cc CONTENT "#include \"${source}\"\n")
        list(APPEND wrapped ${CMAKE_CURRENT_BINARY_DIR}/${name}/${stem}.cc)
    endforeach()
    add_library(${name} STATIC ${wrapped})
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_STANDARD 17)
    target_compile_options(${name} PRIVATE ${optimise} -fwrapv -mfma -mf16c -fno-exceptions -fno-rtti
        -Wno-unknown-pragmas -Wno-missing-field-initializers -Wa,--no-warn)
    target_link_libraries(${name} PUBLIC simt)
endfunction()

# The same for the race build: what ThreadSanitizer's compiler pass calls is the shim's own (race.c).
function(simt_race_library name)
    simt_library(${name} ${ARGN})
    target_compile_options(${name} PRIVATE -fsanitize=thread -Wno-tsan) # which has no fences; the shim has
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
endfunction()

file(GLOB kernels CONFIGURE_DEPENDS kernels/cuda/*.cu)
simt_library(simt_kernels ${kernels})
target_link_libraries(simt_kernels PUBLIC kernels base)
simt_race_library(simt_kernels_race ${kernels})
target_link_libraries(simt_kernels_race PUBLIC kernels base)

file(GLOB sources CONFIGURE_DEPENDS device/cuda/*.c)
list(FILTER sources EXCLUDE REGEX "/plugin\\.c$")
add_library(simt_device STATIC ${sources})
set_target_properties(simt_device PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(simt_device PUBLIC simt device sparsity model kernels base) # and one of the kernels

add_library(gpu_memory STATIC tests/gpu/memory.c)
target_link_libraries(gpu_memory PUBLIC simt PkgConfig::CMOCKA)

function(gpu_test name source kernels)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE
        gpu_memory simt_device ${kernels} suites synth ${rooms} PkgConfig::CMOCKA PkgConfig::JANSSON)
    target_compile_definitions(${name} PRIVATE TEST_DATA="${PROJECT_SOURCE_DIR}/tests/vectors")
endfunction()

# gpu_NAME_race is what tests/gpu/full.sh runs: too slow for every change.
add_custom_target(gpu_races)
file(GLOB sources CONFIGURE_DEPENDS tests/gpu/*_test.c)
foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    gpu_test(gpu_${name} ${source} simt_kernels)
    add_test(NAME gpu_${name} COMMAND gpu_${name})
    set_tests_properties(gpu_${name} PROPERTIES LABELS gpu TIMEOUT 300)
    if(NOT HEARTH_SANITIZE)
        string(REGEX REPLACE "_test$" "_race" race gpu_${name})
        gpu_test(${race} ${source} simt_kernels_race)
        set_target_properties(${race} PROPERTIES EXCLUDE_FROM_ALL ON)
        add_dependencies(gpu_races ${race})
    endif()
endforeach()

# The whole program over the shim: its plug-in, with a GPU that is none.
if(NOT HEARTH_SANITIZE)
    add_library(simt_plugin MODULE device/cuda/plugin.c)
    set_target_properties(simt_plugin PROPERTIES OUTPUT_NAME hearth_cuda C_VISIBILITY_PRESET hidden
        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/simt)
    target_link_libraries(simt_plugin PRIVATE simt_device simt_kernels simt plugin_rooms)
    target_link_options(simt_plugin PRIVATE LINKER:--no-undefined,--as-needed,--exclude-libs,ALL)
    add_test(NAME gpu_program COMMAND sh ${PROJECT_SOURCE_DIR}/tests/gpu/program_test.sh $<TARGET_FILE:hearth>
        $<TARGET_FILE_DIR:simt_plugin> ${PROJECT_SOURCE_DIR}/tests/vectors ${MPIEXEC_EXECUTABLE})
    set_tests_properties(gpu_program PROPERTIES LABELS gpu TIMEOUT 300 SKIP_RETURN_CODE 77)
    add_test(NAME gpu_numbers COMMAND numbers_test)
    set_tests_properties(gpu_numbers PROPERTIES LABELS gpu TIMEOUT 300
        ENVIRONMENT "HEARTH_TEST_PLUGIN=$<TARGET_FILE_DIR:simt_plugin>;HEARTH_SIMT_DEVICES=3")
    # With what stands in for NCCL, under the names of the real ones.
    set(folder ${CMAKE_BINARY_DIR}/stand_in_nccl)
    file(MAKE_DIRECTORY ${folder})
    foreach(name libnccl.so.2 libcudart.so.13)
        file(CREATE_LINK ${CMAKE_BINARY_DIR}/libnccl_stand_in.so ${folder}/${name} SYMBOLIC)
    endforeach()
    add_test(NAME nccl_program COMMAND sh ${PROJECT_SOURCE_DIR}/tests/nccl/program_test.sh $<TARGET_FILE:hearth>
        $<TARGET_FILE_DIR:simt_plugin> ${PROJECT_SOURCE_DIR}/tests/vectors ${folder})
    set_tests_properties(nccl_program PROPERTIES LABELS gpu TIMEOUT 120)
endif()

# The shim's own: that it finds what is wrong.
set(planted ${PROJECT_SOURCE_DIR}/tests/gpu/shim/selftest/planted.cu)
simt_library(simt_planted ${planted})
simt_race_library(simt_planted_race ${planted})
foreach(kind "" _race)
    if(NOT (kind AND HEARTH_SANITIZE))
        add_executable(simt_selftest${kind} tests/gpu/shim/selftest/selftest.c)
        target_link_libraries(simt_selftest${kind} PRIVATE simt_planted${kind} PkgConfig::CMOCKA)
        add_test(NAME simt_selftest${kind} COMMAND simt_selftest${kind})
        set_tests_properties(simt_selftest${kind} PROPERTIES LABELS gpu)
    endif()
endforeach()

# The speed program runs; how fast kernels are over the shim says nothing.
file(GLOB sources CONFIGURE_DEPENDS tests/gpu/speed/*.c)
add_executable(gpu_speed ${sources})
target_link_libraries(gpu_speed PRIVATE simt_kernels suites PkgConfig::JANSSON)
if(NOT HEARTH_SANITIZE)
    add_test(NAME gpu_speed COMMAND gpu_speed -s 64)
    set_tests_properties(gpu_speed PROPERTIES LABELS gpu TIMEOUT 300)
endif()

# What kernels move of the GPU's memory: docs/gpu-kernels.md has what it prints.
if(NOT HEARTH_SANITIZE)
    list(FILTER sources EXCLUDE REGEX "/(main|machine|timing)\\.c$")
    add_executable(gpu_traffic EXCLUDE_FROM_ALL tests/gpu/traffic.c ${sources})
    target_link_libraries(gpu_traffic PRIVATE simt_kernels_race suites PkgConfig::JANSSON)
endif()

# Mistakes that tests must find (tests/gpu/full.sh plants them): they still can be planted.
find_package(Python3 COMPONENTS Interpreter)
if(Python3_FOUND)
    add_test(NAME gpu_planted COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tests/gpu/planted.py --check)
    set_tests_properties(gpu_planted PROPERTIES LABELS gpu)
endif()

# What a machine with a GPU runs (tests/gpu/pack.sh); and what only nvcc shows, which takes minutes for an architecture.
add_test(NAME gpu_on_device COMMAND sh ${PROJECT_SOURCE_DIR}/tests/gpu/on_device_test.sh)
set_tests_properties(gpu_on_device PROPERTIES LABELS gpu TIMEOUT 120)
if(NOT HEARTH_SANITIZE)
    add_test(NAME gpu_ptx COMMAND sh -c "[ \"$HEARTH_TEST_PTX\" = 1 ] || {
            echo 'skipped: HEARTH_TEST_PTX=1 runs it, for minutes'
            exit 77
        }
        exec sh ${PROJECT_SOURCE_DIR}/tests/gpu/ptx.sh 80")
    set_tests_properties(gpu_ptx PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 1800)
    # A file of each kind; without arguments it compiles all of them, for three minutes.
    add_test(NAME gpu_hip COMMAND sh ${PROJECT_SOURCE_DIR}/tests/gpu/hip.sh kernels/cuda/rotate.cu)
    add_test(NAME gpu_hip_host COMMAND sh ${PROJECT_SOURCE_DIR}/tests/gpu/hip.sh device/cuda/cuda.c)
    set_tests_properties(gpu_hip gpu_hip_host PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 300)
    add_test(NAME gpu_ptx_test COMMAND sh ${PROJECT_SOURCE_DIR}/tests/gpu/ptx_test.sh)
    set_tests_properties(gpu_ptx_test PROPERTIES LABELS gpu SKIP_RETURN_CODE 77)
endif()
