# The program, its man pages, cmake --install, and the tests of its command line.
include(GNUInstallDirs)
# cli is built as a library so that tests can call it; main() alone is the program.
add_executable(hearth cli/main.c)
target_link_libraries(hearth PRIVATE cli)
install(TARGETS hearth RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

# The text that `hearth prepare` learns from unless it is given another: it looks for share/hearth beside its own folder
# and, in a build, within it.
install(FILES tests/vectors/text/licences.txt DESTINATION share/hearth)
configure_file(tests/vectors/text/licences.txt share/hearth/licences.txt COPYONLY)

# The man pages are what --help says, whose groups are headings where they begin a line.
find_program(HELP2MAN help2man)
if(HELP2MAN)
    set(pages)
    if(HEARTH_MPI)
        set(serve serve) # else it only says that it cannot (cli/no_http.c)
    endif()
    foreach(command "" run chat ${serve} bench perplexity tokenize inspect probe plan prepare)
        string(JOIN "-" name hearth ${command})
        string(JOIN " " call $<TARGET_FILE:hearth> ${command})
        string(JOIN " " title hearth ${command})
        add_custom_command(OUTPUT ${name}.1
            COMMAND ${CMAKE_COMMAND} -E env ARGP_HELP_FMT=header-col=0
                    ${HELP2MAN} --no-info --name "${title}, one language model over several PCs"
                    --version-string "${name} ${PROJECT_VERSION}" --output ${name}.1 "${call}"
            DEPENDS hearth VERBATIM)
        list(APPEND pages ${CMAKE_CURRENT_BINARY_DIR}/${name}.1)
    endforeach()
    add_custom_target(man ALL DEPENDS ${pages})
    install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
else()
    message(STATUS "help2man is not there: no man pages")
endif()

include(CTest)
if(BUILD_TESTING)
    add_test(NAME rooms_test COMMAND sh ${PROJECT_SOURCE_DIR}/tests/unit/rooms_test.sh ${PROJECT_SOURCE_DIR})
    add_test(NAME rooms_self_test
             COMMAND sh ${PROJECT_SOURCE_DIR}/tests/unit/rooms_test.sh --self-test ${PROJECT_SOURCE_DIR})
    foreach(room ${rooms})
        get_target_property(type ${room} TYPE)
        if(type STREQUAL "STATIC_LIBRARY")
            list(APPEND libraries $<TARGET_FILE:${room}>)
        endif()
    endforeach()
    if(TARGET device_cuda)
        list(APPEND libraries $<TARGET_FILE:device_cuda>)
    endif()
    add_test(NAME circles_test COMMAND sh ${PROJECT_SOURCE_DIR}/tests/unit/circles_test.sh ${libraries})
    # tests/cli/NAME_test.sh HEARTH, tests/serve likewise: exit status 77 says that it was skipped (it needs a model:
    # HEARTH_TEST_MODEL).
    file(GLOB scripts CONFIGURE_DEPENDS tests/cli/*_test.sh tests/serve/*_test.sh)
    if(HEARTH_SANITIZE) # the page is no C, and what it asks for others ask for too
        list(FILTER scripts EXCLUDE REGEX "/page_test\\.sh$")
    endif()
    if(NOT CMAKE_BUILD_TYPE STREQUAL "Release") # no package is made of a build for tests
        list(FILTER scripts EXCLUDE REGEX "/(package|service|container)_test\\.sh$")
    endif()
    foreach(script ${scripts})
        get_filename_component(name ${script} NAME_WE)
        get_filename_component(folder ${script} DIRECTORY)
        get_filename_component(folder ${folder} NAME)
        add_test(NAME ${folder}_${name} COMMAND sh ${script} $<TARGET_FILE:hearth>)
        set_tests_properties(${folder}_${name} PROPERTIES SKIP_RETURN_CODE 77)
        if(HEARTH_SANITIZE)
            set_tests_properties(${folder}_${name} PROPERTIES ENVIRONMENT HEARTH_TEST_SANITIZED=1)
        endif()
    endforeach()
    if(TEST serve_service_test) # an emulated machine, as tests/rdma has them
        set_tests_properties(serve_service_test PROPERTIES RESOURCE_LOCK guests TIMEOUT 330)
    endif()
endif()
