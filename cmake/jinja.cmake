# model/jinja/helper.py becomes part of the program, as a string: no file has to be found to render a template by, and
# none can be another's.
set(helper ${PROJECT_SOURCE_DIR}/model/jinja/helper.py)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${helper})
file(READ ${helper} text)
string(REPLACE "\\" "\\\\" text "${text}")
string(REPLACE "\"" "\\\"" text "${text}")
string(REPLACE "\n" "\\n\"\n    \"" text "${text}")
set(helper_text ${CMAKE_BINARY_DIR}/model/jinja/helper_text.c)
file(CONFIGURE OUTPUT ${helper_text} @ONLY CONTENT
    "#include \"model/jinja/process.h\"\n\nconst char jinja_helper_text[] =\n    \"${text}\";\n")
target_sources(model_jinja PRIVATE ${helper_text})
