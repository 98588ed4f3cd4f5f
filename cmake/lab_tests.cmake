# Tests that run on hosts made out of this machine: network namespaces (deploy/lab) and
# virtual machines with RDMA (tests/rdma).
# Where that cannot be done they are skipped, unless HEARTH_REQUIRE_LABS=1 is set as it is in CI.
add_test(NAME lab COMMAND sh ${PROJECT_SOURCE_DIR}/tests/lab/lab_test.sh $<TARGET_FILE:hearth>
    ${PROJECT_SOURCE_DIR}/tests/vectors)
set_tests_properties(lab PROPERTIES
    LABELS lab PROCESSORS 2 TIMEOUT 120 SKIP_RETURN_CODE 77 ENVIRONMENT "${mpi_environment}")

add_executable(transport_verbs tests/rdma/transport_verbs.c)
target_link_libraries(transport_verbs PRIVATE suites)
if(NOT HEARTH_SANITIZE) # an emulated processor is slow enough
    foreach(part one two)
        add_test(NAME rdma_${part} COMMAND sh ${PROJECT_SOURCE_DIR}/tests/rdma/rdma_test.sh ${part}
            ${PROJECT_BINARY_DIR} ${PROJECT_SOURCE_DIR}/tests/vectors)
        set_tests_properties(rdma_${part} PROPERTIES
            LABELS rdma PROCESSORS 2 RESOURCE_LOCK guests TIMEOUT 330 SKIP_RETURN_CODE 77)
    endforeach()
endif()
