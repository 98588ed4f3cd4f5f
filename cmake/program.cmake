# The program, its man page, and cmake --install.
include(GNUInstallDirs)
if(EXISTS ${PROJECT_SOURCE_DIR}/cli/cluster.c)
    # cli is built as a library so that tests can call it; main() alone is the program.
    add_executable(hearth cli/main.c)
    target_link_libraries(hearth PRIVATE cli)
    install(TARGETS hearth RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
