#ifndef CUBE_POOL_ZYGOTE_REQUEST_H_
#define CUBE_POOL_ZYGOTE_REQUEST_H_

#include <boost/asio/local/stream_protocol.hpp>
#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "pool/async.h"
#include "pool/launcher.h"
#include "pool/outcome.h"

namespace cube::pool {

using ZygoteSocket = std::shared_ptr<asio::local::stream_protocol::socket>;

// Takes a connected socket over.
Outcome<ZygoteSocket> AdoptSocket(asio::io_context& io, UniqueFd fd);

// The next line of it, which is an answer of a zygote or of a clone that comes up; `from` is named
// where there is none within 20 s. *`lost`, if given, tells whether that is so.
Task<Outcome<Done>> AwaitAnswer(asio::io_context& io, ZygoteSocket socket, std::string from,
                                bool* lost = nullptr);

// One request to the zygote at `path` and its answer, over a connection of its own.
Task<Outcome<Done>> AskZygote(asio::io_context& io, std::string path, CloneRequest request,
                              bool* lost = nullptr);

}  // namespace cube::pool

#endif  // CUBE_POOL_ZYGOTE_REQUEST_H_
