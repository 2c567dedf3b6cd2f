#ifndef CUBE_POOL_NOTIFY_H_
#define CUBE_POOL_NOTIFY_H_

#include <string_view>

namespace cube::pool {

// Tells whoever has started this process and asked for it by $NOTIFY_SOCKET, as systemd does
// (sd_notify(3)): "READY=1". Nobody may be listening, which is no error.
void NotifyStarter(std::string_view state);

}  // namespace cube::pool

#endif  // CUBE_POOL_NOTIFY_H_
