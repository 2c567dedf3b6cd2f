#ifndef CUBE_API_GUEST_REQUEST_H_
#define CUBE_API_GUEST_REQUEST_H_

#include <string>

#include "pool/async.h"
#include "pool/outcome.h"

namespace cube::api {

// GET of a sandbox's own server: the body of a 200. `vsock`: the machine's socket. What it says may
// be anything; at most 64 KiB of it within two seconds.
pool::Task<pool::Outcome<std::string>> GetFromGuest(boost::asio::io_context& io, std::string vsock,
                                                    uint16_t port, std::string path,
                                                    std::string token);

}  // namespace cube::api

#endif  // CUBE_API_GUEST_REQUEST_H_
