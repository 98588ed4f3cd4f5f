# A file per instruction set; which one runs is decided at run time (kernels/select.c), never by the build machine.
# Fuzz targets read bytes and hardly compute: the scalar table does for them, and is built in seconds.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT HEARTH_FUZZ)
    # Their many variants, optimised and instrumented to the full, would take a sanitizer build a quarter of an hour.
    set(optimise -O3)
    if(HEARTH_SANITIZE)
        set(optimise -O1 -fno-sanitize=undefined)
        # AddressSanitizer's stand-in for the stack, which finds uses after return, aligns no frame to 64 bytes.
        # Registers are given out by function, not by loop: that took more than half of the time.
        if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
            list(APPEND optimise --param=asan-use-after-return=0 -fira-region=one)
        endif()
    endif()
    file(GLOB avx2 CONFIGURE_DEPENDS kernels/x86/avx2*.c)
    file(GLOB avx512 CONFIGURE_DEPENDS kernels/x86/avx512*.c)
    set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "${optimise};-mavx2;-mfma;-mf16c")
    set(wide -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mprefer-vector-width=512)
    set_source_files_properties(${avx512} PROPERTIES COMPILE_OPTIONS "${optimise};-mavx2;-mfma;-mf16c;${wide}")
    target_sources(kernels PRIVATE ${avx2} ${avx512})
    target_compile_definitions(kernels PRIVATE HEARTH_X86=1)
endif()
if(HEARTH_SANITIZE)
    file(GLOB scalar CONFIGURE_DEPENDS kernels/*.c)
    set_source_files_properties(${scalar} PROPERTIES COMPILE_OPTIONS -O2)
endif()
