#ifndef CUBE_TESTS_PROCESS_MEMORY_H_
#define CUBE_TESTS_PROCESS_MEMORY_H_

#include <sys/types.h>

namespace cube::testing {

// A process's own memory, KiB: pages that nothing else maps, its guest's among them. -1 if there is
// no such process.
long AnonymousKib(pid_t pid);

}  // namespace cube::testing

#endif  // CUBE_TESTS_PROCESS_MEMORY_H_
