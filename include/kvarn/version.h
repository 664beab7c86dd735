/* The version of the library and of its headers. The build reads it from here; it is written nowhere else. */
#ifndef KVARN_VERSION_H
#define KVARN_VERSION_H

/* Semantic version (semver.org). While the major version is 0, a new minor version may change or remove declarations.
 */
#define KVARN_VERSION_MAJOR 0
#define KVARN_VERSION_MINOR 1
#define KVARN_VERSION_PATCH 0

/* One number that grows with the version: major * 1000000 + minor * 1000 + patch. */
#define KVARN_VERSION_NUMBER (KVARN_VERSION_MAJOR * 1000000 + KVARN_VERSION_MINOR * 1000 + KVARN_VERSION_PATCH)

#endif
