# NCCL and the CUDA runtime are opened at run time (transport/nccl_library.c); nothing is linked with them. Their
# interface is NVIDIA's own headers' where the CUDA toolkit has them, and the few lines of transport/nccl_abi/
# elsewhere.
find_package(CUDAToolkit QUIET)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
set(nccl_abi ${PROJECT_SOURCE_DIR}/transport/nccl_abi)
if(CUDAToolkit_FOUND AND NCCL_INCLUDE_DIR)
    set(nccl_include ${CUDAToolkit_INCLUDE_DIRS} ${NCCL_INCLUDE_DIR})
else()
    set(nccl_include ${nccl_abi})
endif()
message(STATUS "NCCL's interface: ${nccl_include}")
add_library(nccl_interface INTERFACE)
target_include_directories(nccl_interface SYSTEM INTERFACE ${nccl_include})
target_link_libraries(nccl_interface INTERFACE ${CMAKE_DL_LIBS})
target_link_libraries(transport PRIVATE nccl_interface)

include(CTest)
if(BUILD_TESTING)
    # The transport against a library that stands in for both.
    add_library(nccl_stand_in SHARED tests/nccl/stand_in.c)
    target_link_libraries(nccl_stand_in PRIVATE hearth_settings nccl_interface Threads::Threads)
    add_executable(nccl_test tests/nccl/nccl_test.c)
    target_link_libraries(nccl_test PRIVATE suites transport base nccl_interface nccl_stand_in PkgConfig::CMOCKA)
    target_link_options(nccl_test PRIVATE -Wl,--wrap=dlsym)
    target_compile_definitions(nccl_test PRIVATE STAND_IN="$<TARGET_FILE:nccl_stand_in>")
    add_test(NAME nccl_test COMMAND nccl_test)

    # Ranks with GPUs: the library is opened in NCCL's place, or not at all.
    target_link_libraries(links_test PRIVATE nccl_stand_in)
    target_link_options(links_test PRIVATE -Wl,--wrap=dlopen -Wl,--wrap=outbox_send)
    target_compile_definitions(links_test PRIVATE STAND_IN_NCCL="$<TARGET_FILE:nccl_stand_in>")

    # Both interfaces are the same; and all of it compiles with the small one too.
    file(GLOB sources CONFIGURE_DEPENDS transport/nccl*.c)
    add_executable(nccl_abi_test tests/nccl/abi_test.c ${sources})
    target_include_directories(nccl_abi_test BEFORE PRIVATE ${nccl_abi})
    target_link_libraries(nccl_abi_test PRIVATE transport base)
    add_test(NAME nccl_abi_test COMMAND nccl_abi_test)
    add_executable(nccl_interface_test tests/nccl/abi_test.c)
    target_link_libraries(nccl_interface_test PRIVATE hearth_settings nccl_interface)
    add_test(NAME nccl_interface_test COMMAND nccl_interface_test)

    # The transport compiled and linked with the real ones; run, it says that there is no GPU if there is none.
    if(CUDAToolkit_FOUND AND NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
        add_executable(nccl_linked tests/nccl/linked.c)
        target_link_libraries(nccl_linked PRIVATE transport base nccl_interface ${NCCL_LIBRARY} CUDA::cudart)
        add_test(NAME nccl_linked COMMAND nccl_linked)
    else()
        add_test(NAME nccl_linked COMMAND sh -c "echo 'no NCCL in the CUDA toolkit, or none at all'; exit 77")
        set_tests_properties(nccl_linked PROPERTIES SKIP_RETURN_CODE 77)
    endif()
endif()
