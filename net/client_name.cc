#include "net/client_name.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "net/policy.h"

namespace cube::net {
namespace {

constexpr uint8_t kHandshake = 22, kClientHello = 1;
constexpr size_t kRecordHeader = 5, kMaxRecord = 16384;
constexpr uint16_t kServerName = 0;

ClientName Refused(std::string why) {
  ClientName refused;
  refused.state = ClientName::kRefused;
  refused.why = std::move(why);
  return refused;
}

ClientName Known(std::string_view text) {
  auto name = ParseDomain(text);
  if (!name.ok() || name->starts_with("*")) return Refused("its name is none");
  ClientName known;
  known.state = ClientName::kKnown;
  known.name = std::move(*name);
  return known;
}

// Takes what has a length before it off the front.
class Cut {
 public:
  explicit Cut(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  bool empty() const { return bytes_.empty(); }
  uint32_t Number(int size) {
    auto bytes = Take(static_cast<size_t>(size));
    uint32_t value = 0;
    for (uint8_t byte : bytes) value = value << 8 | byte;
    return value;
  }
  std::span<const uint8_t> Take(size_t size) {
    ok_ = ok_ && size <= bytes_.size();
    if (!ok_) return {};
    auto front = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return front;
  }
  // A vector whose length has `size` bytes.
  std::span<const uint8_t> Vector(int size) { return Take(Number(size)); }

 private:
  std::span<const uint8_t> bytes_;
  bool ok_ = true;
};

ClientName ReadHello(std::span<const uint8_t> hello) {
  Cut cut(hello);
  cut.Take(2 + 32);  // version, random
  cut.Vector(1);     // session
  cut.Vector(2);     // cipher suites
  cut.Vector(1);     // compression
  if (cut.ok() && cut.empty()) return Refused("its ClientHello has no name");
  Cut extensions(cut.Vector(2));
  if (!cut.ok() || !cut.empty()) return Refused("its ClientHello is malformed");
  ClientName found = Refused("its ClientHello has no name");
  bool seen = false;
  while (extensions.ok() && !extensions.empty()) {
    uint32_t type = extensions.Number(2);
    Cut extension(extensions.Vector(2));
    if (!extensions.ok() || type != kServerName) continue;
    if (seen) return Refused("its ClientHello has two names");
    seen = true;
    Cut list(extension.Vector(2));
    uint32_t kind = list.Number(1);
    auto name = list.Vector(2);
    // One name, of a host: there are no other kinds, and one of each at most.
    if (!extension.ok() || !extension.empty() || !list.ok() || !list.empty() || kind != 0) {
      return Refused("its ClientHello's name is malformed");
    }
    found = Known({reinterpret_cast<const char*>(name.data()), name.size()});
  }
  if (!extensions.ok()) return Refused("its ClientHello is malformed");
  return found;
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  });
}

bool IsPlain(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 || byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 32);
  }
  return lower;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// "METHOD /TARGET HTTP/1.x"; an absolute target would come before the Host, and CONNECT has no
// path.
bool IsRequestLine(std::string_view line) {
  size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return false;
  std::string_view method = line.substr(0, first), version = line.substr(last + 1);
  std::string_view target = line.substr(first + 1, last - first - 1);
  return IsToken(method) && method != "CONNECT" && (target.starts_with('/') || target == "*") &&
         target.find(' ') == std::string_view::npos && IsPlain(target) &&
         (version == "HTTP/1.1" || version == "HTTP/1.0");
}

}  // namespace

ClientName ReadTlsName(std::span<const uint8_t> bytes) {
  std::vector<uint8_t> handshake;
  while (true) {
    if (!bytes.empty() && bytes[0] != kHandshake) return Refused("it does not begin with TLS");
    if (bytes.size() >= 2 && bytes[1] != 3) return Refused("it does not begin with TLS");
    if (bytes.size() < kRecordHeader) return {};
    size_t size = static_cast<size_t>(bytes[3]) << 8 | bytes[4];
    if (size == 0 || size > kMaxRecord) return Refused("its TLS record cannot be");
    auto content = bytes.subspan(kRecordHeader);
    auto part = content.first(std::min(size, content.size()));
    handshake.insert(handshake.end(), part.begin(), part.end());
    if (!handshake.empty() && handshake[0] != kClientHello) {
      return Refused("it does not begin with a ClientHello");
    }
    if (handshake.size() >= 4) {
      size_t whole = static_cast<size_t>(handshake[1]) << 16 | handshake[2] << 8 | handshake[3];
      if (whole + 4 > kMaxClientHead) return Refused("its ClientHello is too long");
      if (handshake.size() >= whole + 4) {
        return ReadHello(std::span<const uint8_t>(handshake).subspan(4, whole));
      }
    }
    if (content.size() < size) return {};
    bytes = content.subspan(size);
    if (bytes.empty()) return {};
  }
}

ClientName ReadHttpName(std::span<const uint8_t> bytes) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  size_t end = text.find("\r\n\r\n");
  if (end == std::string_view::npos) {
    // What is not HTTP need not be waited for.
    size_t line = text.find('\n');
    if (line == std::string_view::npos) return {};
    if (line == 0 || text[line - 1] != '\r' || !IsRequestLine(text.substr(0, line - 1))) {
      return Refused("it does not begin with a request of HTTP/1");
    }
    return {};
  }
  std::string_view head = text.substr(0, end);
  size_t at = std::min(head.find("\r\n"), head.size());
  if (!IsRequestLine(head.substr(0, at))) {
    return Refused("it does not begin with a request of HTTP/1");
  }
  ClientName found;
  std::string kept(head.substr(0, at));
  bool seen = false;
  while (at < head.size()) {
    at += 2;
    size_t next = std::min(head.find("\r\n", at), head.size());
    std::string_view line = head.substr(at, next - at);
    at = next;
    size_t colon = line.find(':');
    // A line that goes on from the one before begins with a space, which is no token.
    if (colon == std::string_view::npos || !IsToken(line.substr(0, colon)) || !IsPlain(line)) {
      return Refused("its request has a malformed header");
    }
    std::string key = Lower(line.substr(0, colon));
    if (key == "host") {
      if (seen) return Refused("its request has two hosts");
      seen = true;
      std::string_view value = Trim(line.substr(colon + 1));
      size_t port = value.find(':');
      if (port != std::string_view::npos && value.substr(port) != ":80") {
        return Refused("its request is for another port");
      }
      found = Known(value.substr(0, port));
      if (found.state == ClientName::kRefused) return found;
    }
    // Of the connection to here, which is another one.
    if (key == "connection" || key == "upgrade" || key == "keep-alive" ||
        key == "proxy-connection" || key == "http2-settings") {
      continue;
    }
    kept += "\r\n";
    kept += line;
  }
  if (!seen) return Refused("its request has no host");
  found.head = kept + "\r\nConnection: close\r\n\r\n";
  found.consumed = end + 4;
  return found;
}

}  // namespace cube::net
