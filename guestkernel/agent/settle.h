#ifndef CUBE_GUESTKERNEL_AGENT_SETTLE_H_
#define CUBE_GUESTKERNEL_AGENT_SETTLE_H_

#include "guestkernel/agent/doorbell.h"

namespace cube::agent {

// Idles for as many seconds as the VMM's word on the kernel's command line says
// (cube_settle=SECONDS, 1 to 600), nothing if there is none: before a template is frozen, so that
// what the kernel does some time after it was busy (giving free memory back to the host, emptying
// its caches) is done once, and not by each clone in memory of its own.
void Settle(Doorbell* doorbell);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_SETTLE_H_
