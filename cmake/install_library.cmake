# What `cmake --install` puts where: headers, both libraries, and what CMake and pkg-config look for. The tree can be moved.
include(CMakePackageConfigHelpers)

set(KVARN_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/kvarn)
install(TARGETS kvarn_static kvarn_shared EXPORT kvarnTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/kvarn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library)
install(EXPORT kvarnTargets NAMESPACE kvarn:: DESTINATION ${KVARN_PACKAGE_DIR} COMPONENT library)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/kvarnConfig.cmake.in ${PROJECT_BINARY_DIR}/kvarnConfig.cmake
                              INSTALL_DESTINATION ${KVARN_PACKAGE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvarnConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvarnConfig.cmake ${PROJECT_BINARY_DIR}/kvarnConfigVersion.cmake
        DESTINATION ${KVARN_PACKAGE_DIR} COMPONENT library)
file(RELATIVE_PATH KVARN_PC_UP /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${PROJECT_SOURCE_DIR}/cmake/kvarn.pc.in ${PROJECT_BINARY_DIR}/kvarn.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kvarn.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
