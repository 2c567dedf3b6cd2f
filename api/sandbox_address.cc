#include "api/sandbox_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace cube::api {
namespace {

constexpr size_t kMaxId = 64;

std::optional<uint16_t> PortOf(std::string_view text) {
  uint16_t port = 0;
  auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (failed != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

bool IsId(std::string_view text) {
  return !text.empty() && text.size() <= kMaxId &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z'); });
}

bool IsDigits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Older clients put the name of a machine behind a hyphen.
std::string_view WithoutClient(std::string_view id) { return id.substr(0, id.find('-')); }

}  // namespace

std::string_view HostName(std::string_view host) {
  if (host.starts_with('[')) {
    size_t end = host.find(']');
    return end == std::string_view::npos ? host : host.substr(1, end - 1);
  }
  size_t colon = host.find(':');
  return colon != host.rfind(':') ? host : host.substr(0, colon);
}

bool IsLocalName(std::string_view name) {
  if (name == "localhost" || name.ends_with(".localhost")) return true;
  std::string text(name);
  in_addr four;
  in6_addr six;
  if (inet_pton(AF_INET, text.c_str(), &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
  return inet_pton(AF_INET6, text.c_str(), &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

Addressee AddresseeOf(const Headers& headers) {
  Addressee to;
  const std::string* host = headers.Find("host");
  std::string name(host == nullptr ? "" : HostName(*host));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  size_t hyphen = name.find('-'), dot = name.find('.');
  if (hyphen != std::string::npos && dot != std::string::npos && hyphen < dot &&
      IsDigits(name.substr(0, hyphen))) {
    std::string id(WithoutClient(std::string_view(name).substr(hyphen + 1, dot - hyphen - 1)));
    auto port = PortOf(name.substr(0, hyphen));
    if (!port || !IsId(id)) {
      to.wrong = "the host is not PORT-SANDBOX.DOMAIN";
    } else {
      to.sandbox = {std::move(id), *port};
    }
    return to;
  }
  const std::string* id = headers.Find("e2b-sandbox-id");
  const std::string* port = headers.Find("e2b-sandbox-port");
  if (id == nullptr && port == nullptr) return to;
  if (id == nullptr || port == nullptr) {
    to.wrong = "E2b-Sandbox-Id and E2b-Sandbox-Port go together";
    return to;
  }
  auto number = PortOf(*port);
  std::string plain(WithoutClient(*id));
  if (!number) {
    to.wrong = "E2b-Sandbox-Port is not a port";
  } else if (!IsId(plain)) {
    to.wrong = "E2b-Sandbox-Id is not an id";
  } else {
    to.sandbox = {std::move(plain), *number};
  }
  return to;
}

}  // namespace cube::api
