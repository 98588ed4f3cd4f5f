# The files of serve/page become part of the program, as bytes: the server serves what it was built with, from no
# folder.
set(page ${PROJECT_SOURCE_DIR}/serve/page)
set(page_type_html "text/html; charset=utf-8")
set(page_type_css "text/css; charset=utf-8")
set(page_type_js "text/javascript; charset=utf-8")
set(page_bytes)
set(page_rows)
foreach(file index.html style.css app.js dom.js house.js markdown.js picture.js server.js settings.js
        talks.js)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${page}/${file})
    file(READ ${page}/${file} bytes HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
    string(MAKE_C_IDENTIFIER ${file} name)
    string(REGEX REPLACE ".*\\." "" kind ${file})
    set(path /page/${file})
    if(file STREQUAL "index.html")
        set(path /)
    endif()
    string(APPEND page_bytes "static const unsigned char ${name}[] = {${bytes}};\n")
    string(APPEND page_rows "    {\"${path}\", \"${page_type_${kind}}\", ${name}, sizeof ${name}},\n")
endforeach()
set(page_files ${CMAKE_BINARY_DIR}/serve/page_files.c)
file(CONFIGURE OUTPUT ${page_files} @ONLY CONTENT
    "#include \"serve/page.h\"\n\n${page_bytes}
const struct page_file page_files[] = {\n${page_rows}};
const size_t page_n_files = sizeof page_files / sizeof *page_files;\n")
target_sources(serve PRIVATE ${page_files})
