# How much of the machine each test takes, and which take long: ctest starts those first. PROCESSORS are halves of one,
# as tests/run.sh tells ctest of twice as many as there are.

# What mostly waits, for mpirun or for a time to pass: half a processor.
set(waits mpi_refusals mpi_launch mpi_text mpi_files)
# What runs in threads is run under ThreadSanitizer, and that alone is built for it (CMakePresets.json).
set(threaded "inproc|threads|cluster|nccl_test|sim_|http_|serve_engine|serve_parallel")

add_custom_target(threaded_tests DEPENDS hearth)
get_property(all DIRECTORY PROPERTY TESTS)
foreach(name ${all})
    if(name MATCHES "${threaded}" AND (TARGET ${name} OR name MATCHES "^serve_"))
        set_property(TEST ${name} APPEND PROPERTY LABELS threads)
        if(TARGET ${name})
            add_dependencies(threaded_tests ${name})
        endif()
    endif()
    get_test_property(${name} PROCESSORS processors)
    if(NOT processors)
        set(processors 1)
    endif()
    math(EXPR halves "2 * ${processors}")
    if(name IN_LIST waits)
        set(halves 1)
    endif()
    set_tests_properties(${name} PROPERTIES PROCESSORS ${halves})
endforeach()

# Seconds, roughly, as released.
function(takes seconds)
    foreach(name ${ARGN})
        if(TEST ${name})
            set_tests_properties(${name} PROPERTIES COST ${seconds})
        endif()
    endforeach()
endfunction()
takes(70 reference_test cli_model_test)
takes(55 rdma_two serve_fields_test serve_service_test relu_model_test device_cpu_test)
takes(45 serve_package_test alone columns_test)
takes(35 serve_death_test serve_parallel_test kernels_test cli_chat_test cli_prepare_test mpi_probe)
takes(30 sparse_test serve_kept_test gpu_products_test gpu_device_test mpi_prepare)
takes(25 cluster_test failure_test gpu_program rdma_one mpi_launch models_test gpu_device_faults_test)
takes(20 serve_container_test mpi_refusals runs_test experts_test rows_test serve_page_test)
takes(12 sequences_test sim_test lab mpi_large gpu_attention_test serve_engine_test families_test mpi_files fit_test
    cluster_faults_test devices_test tokenizer_test)
