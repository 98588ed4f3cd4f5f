# Tests that run on hosts made out of this machine: network namespaces (deploy/lab).
# Where that cannot be done they are skipped, unless HEARTH_REQUIRE_LABS=1 is set as it is in CI.
add_test(NAME lab COMMAND sh ${PROJECT_SOURCE_DIR}/tests/lab/lab_test.sh $<TARGET_FILE:hearth>
    ${PROJECT_SOURCE_DIR}/tests/vectors)
set_tests_properties(lab PROPERTIES
    LABELS lab PROCESSORS 2 TIMEOUT 120 SKIP_RETURN_CODE 77 ENVIRONMENT "${mpi_environment}")
