#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_GUNZIP_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_GUNZIP_H_

#include <zlib.h>

#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "base/result.h"

namespace cube::agent::envd {

// Undoes gzip (RFC 1952, any number of members) in pieces as they come.
class Gunzip {
 public:
  using Sink = std::function<Status(std::string_view bytes)>;

  // Null if there is no memory for it. `scratch` is where pieces are made; it outlives this.
  static std::unique_ptr<Gunzip> Create(std::span<char> scratch);
  ~Gunzip();

  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;

  // Gives `sink` what `bytes` stand for; its error ends it. An error as well if they are not gzip.
  Status Add(std::string_view bytes, const Sink& sink);
  // True if the last member is whole.
  bool complete() const { return at_end_; }

 private:
  explicit Gunzip(std::span<char> scratch) : scratch_(scratch) {}

  std::span<char> scratch_;
  z_stream stream_ = {};
  bool initialized_ = false;
  bool at_end_ = false;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_GUNZIP_H_
