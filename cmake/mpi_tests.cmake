# Tests that run under mpirun. Ranks share the cores: --oversubscribe allows more of them than there are.
set(mpirun ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe --bind-to none)
# MPI unloads plug-ins whose memory it never frees, which no suppression can name: leaks are found in process instead.
# What ranks remember of files they keep to themselves.
set(mpi_environment ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1 XDG_CACHE_HOME=${CMAKE_BINARY_DIR})

add_executable(transport_mpi tests/mpi/transport_mpi.c)
target_link_libraries(transport_mpi PRIVATE suites)
foreach(n_ranks 1 2 3 4)
    add_test(NAME transport_mpi_${n_ranks} COMMAND ${mpirun} -np ${n_ranks} $<TARGET_FILE:transport_mpi>)
    set_tests_properties(transport_mpi_${n_ranks} PROPERTIES
        PROCESSORS ${n_ranks} TIMEOUT 300 ENVIRONMENT "${mpi_environment}")
endforeach()

add_test(NAME transport_mpi_alone COMMAND transport_mpi)
set_tests_properties(transport_mpi_alone PROPERTIES PASS_REGULAR_EXPRESSION "run this under mpirun")

add_test(NAME rank_death
    COMMAND sh ${PROJECT_SOURCE_DIR}/tests/mpi/rank_death.sh ${MPIEXEC_EXECUTABLE} $<TARGET_FILE:transport_mpi>)
set_tests_properties(rank_death PROPERTIES PROCESSORS 3 TIMEOUT 120 ENVIRONMENT "${mpi_environment}")

add_executable(old_rank tests/mpi/old_rank.c)
target_link_libraries(old_rank PRIVATE ${rooms})
set(parts text refusals deaths)
if(NOT HEARTH_SANITIZE)
    list(APPEND parts large) # a sanitizer would take too long
endif()
foreach(part ${parts})
    add_test(NAME mpi_${part} COMMAND sh ${PROJECT_SOURCE_DIR}/tests/mpi/cluster.sh ${part} ${MPIEXEC_EXECUTABLE}
        $<TARGET_FILE:hearth> ${PROJECT_SOURCE_DIR}/tests/vectors $<TARGET_FILE:old_rank>)
    set_tests_properties(mpi_${part} PROPERTIES SKIP_RETURN_CODE 77)
endforeach()
foreach(name files prepare probe launch)
    add_test(NAME mpi_${name} COMMAND sh ${PROJECT_SOURCE_DIR}/tests/mpi/${name}.sh ${MPIEXEC_EXECUTABLE}
        $<TARGET_FILE:hearth> ${PROJECT_SOURCE_DIR}/tests/vectors)
    list(APPEND parts ${name})
endforeach()
# Some start many short runs and wait for mpirun most of the time; others compute, or count on how long something takes.
foreach(part ${parts})
    set(processors 1)
    if(NOT part MATCHES "text|refusals|launch")
        set(processors 3)
    endif()
    set_tests_properties(mpi_${part} PROPERTIES
        PROCESSORS ${processors} TIMEOUT 600 ENVIRONMENT "${mpi_environment}")
endforeach()

# The program without MPI, which is built for it: once, for its source is the same under every sanitizer.
if(NOT HEARTH_SANITIZE)
    add_test(NAME alone COMMAND sh ${PROJECT_SOURCE_DIR}/tests/alone/alone_test.sh ${MPIEXEC_EXECUTABLE}
        $<TARGET_FILE:hearth> ${PROJECT_SOURCE_DIR}/tests/vectors ${PROJECT_SOURCE_DIR} ${CMAKE_BINARY_DIR}/alone)
    set_tests_properties(alone PROPERTIES PROCESSORS 2 TIMEOUT 600 ENVIRONMENT "${mpi_environment}")
endif()
