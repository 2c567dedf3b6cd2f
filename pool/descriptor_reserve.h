#ifndef CUBE_POOL_DESCRIPTOR_RESERVE_H_
#define CUBE_POOL_DESCRIPTOR_RESERVE_H_

#include "pool/outcome.h"

namespace cube::pool {

// Of this process's descriptors the last ones are not for more sandboxes: with them those that are
// there can still be asked for, paused and killed. A refusal (no capacity) if only they are left.
Outcome<Done> CheckDescriptors();

}  // namespace cube::pool

#endif  // CUBE_POOL_DESCRIPTOR_RESERVE_H_
