#ifndef CUBE_TESTS_BUSYBOX_IMAGE_H_
#define CUBE_TESTS_BUSYBOX_IMAGE_H_

#include <map>
#include <string>

namespace cube::testing {

// The layers of a container image with busybox, two users, and a layer that deletes some of the
// other one's files; and its configuration: user app, working directory /srv, two variables, a
// command.
std::map<int, std::string> BusyboxLayers();
extern const char kBusyboxConfig[];

}  // namespace cube::testing

#endif  // CUBE_TESTS_BUSYBOX_IMAGE_H_
