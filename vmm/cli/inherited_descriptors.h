#ifndef CUBE_VMM_CLI_INHERITED_DESCRIPTORS_H_
#define CUBE_VMM_CLI_INHERITED_DESCRIPTORS_H_

#include <vector>

namespace cube::vmm {

// In the child of a fork: closes every descriptor but `kept`, and has /dev/null stand for the
// standard ones. Through what else it has of its parent's (KVM's VM and vCPUs, the event loop's
// epoll set, sockets and their peers, the terminal) it would keep the parent's machine alive and
// act on it.
void CloseDescriptorsExcept(std::vector<int> kept);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_INHERITED_DESCRIPTORS_H_
