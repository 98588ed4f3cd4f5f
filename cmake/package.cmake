# A Debian package: cpack -G DEB in the folder of a build that is complete. What it depends on is what the program links
# (dpkg-shlibdeps).
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON) # nothing is built for it, tests least of all
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md" PATTERN "*.svg")
install(FILES deploy/hearth.service DESTINATION lib/systemd/system)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_NAME hearth)
set(CPACK_PACKAGE_CONTACT "hearth")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "one language model over the PCs that are already in the house")
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3-jinja2")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "openmpi-bin, libopenblas0-pthread")
include(CPack)
