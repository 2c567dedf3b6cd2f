#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_SESSION_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_SESSION_H_

#include <sys/types.h>

namespace cube::agent::envd {

// Kills all processes of the session that `leader` leads: its process group, and the groups that a
// shell with job control has made. Who has left for a session of its own (setsid(2)) is spared.
// `reaped`: the leader itself has ended and has been waited for; if its number is another's since,
// so that there is nobody left of its session, nothing is done.
void KillSession(pid_t leader, bool reaped);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_SESSION_H_
