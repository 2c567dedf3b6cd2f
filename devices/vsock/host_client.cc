#include "devices/vsock/host_client.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>

namespace cube::devices::vsock {
namespace {

// "CONNECT <port>", in decimal, without its end of line.
bool ParsePort(std::string_view line, uint32_t* port) {
  constexpr std::string_view kVerb = "CONNECT ";
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!line.starts_with(kVerb)) return false;
  line.remove_prefix(kVerb.size());
  auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), *port);
  return error == std::errc() && end == line.data() + line.size();
}

}  // namespace

HostClient::Progress HostClient::Read() {
  char bytes[kMaxLine];
  size_t room = kMaxLine - line_.size();
  // What follows the line is the guest's: look first, then take.
  ssize_t seen = recv(fd_.get(), bytes, room, MSG_PEEK | MSG_DONTWAIT);
  if (seen < 0 && (errno == EAGAIN || errno == EINTR)) return Progress::kMore;
  if (seen <= 0) return Progress::kBad;
  const char* end = std::find(bytes, bytes + seen, '\n');
  bool whole = end != bytes + seen;
  auto size = static_cast<size_t>(end - bytes) + (whole ? 1 : 0);
  if (recv(fd_.get(), bytes, size, MSG_DONTWAIT) != static_cast<ssize_t>(size)) {
    return Progress::kBad;
  }
  line_.append(bytes, static_cast<size_t>(end - bytes));
  if (whole) return ParsePort(line_, &port_) ? Progress::kPort : Progress::kBad;
  return line_.size() < kMaxLine ? Progress::kMore : Progress::kBad;
}

}  // namespace cube::devices::vsock
