#include "net/network.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>
#include <optional>

namespace cube::net {
namespace {

std::optional<uint32_t> Dotted(std::string_view text) {
  uint32_t address = 0;
  for (int i = 0; i < 4; ++i) {
    size_t end = i < 3 ? text.find('.') : text.size();
    if (end == std::string_view::npos) return {};
    uint32_t byte = PlainNumber(text.substr(0, end), 255);
    if (byte > 255) return {};
    address = address << 8 | byte;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return address;
}

std::optional<Uint128> Colons(std::string_view text) {
  in6_addr address;
  // What has a zero byte in it ends there for inet_pton().
  if (text.size() >= INET6_ADDRSTRLEN || text.find('\0') != std::string_view::npos) return {};
  if (inet_pton(AF_INET6, std::string(text).c_str(), &address) != 1) return {};
  bpf::address6 wire;
  memcpy(&wire, &address, sizeof wire);
  return FromWire(wire);
}

template <typename N, typename Parse>
Result<N> ParseAny(std::string_view text, const char* form, const Parse& parse) {
  size_t slash = text.find('/');
  auto address = parse(text.substr(0, slash));
  uint32_t prefix = N::kBits;
  if (slash != std::string_view::npos) prefix = PlainNumber(text.substr(slash + 1), N::kBits);
  if (!address || prefix > N::kBits) {
    return Errorf("\"%s\" is not %s or %s/PREFIX", ShownText(text).c_str(), form, form);
  }
  N network = {*address, static_cast<uint8_t>(prefix)};
  if ((network.address & ~network.mask()) != 0) {
    return Errorf("\"%s\" has bits beyond its prefix of %u", ShownText(text).c_str(), prefix);
  }
  return network;
}

}  // namespace

uint32_t PlainNumber(std::string_view text, uint32_t most) {
  uint32_t value = 0;
  auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool good = failed == std::errc() && end == text.data() + text.size() && value <= most;
  return good && (text.size() == 1 || text[0] != '0') ? value : most + 1;
}

std::string ShownText(std::string_view text) {
  std::string shown;
  for (char c : text.substr(0, 64)) shown += c >= ' ' && c <= '~' && c != '"' ? c : '?';
  return shown;
}

Result<Network> ParseNetwork(std::string_view text) {
  return ParseAny<Network>(text, "A.B.C.D", Dotted);
}

Result<Network6> ParseNetwork6(std::string_view text) {
  return ParseAny<Network6>(text, "an address of IPv6", Colons);
}

bool LooksLikeIpv6(std::string_view text) {
  size_t colon = text.find(':');
  if (text.starts_with('[')) return true;
  return colon != std::string_view::npos && text.find(':', colon + 1) != std::string_view::npos;
}

std::string NetworkText(const Network& network) {
  std::string text = AddressText(ToWire(network.address));
  return network.prefix == Network::kBits ? text : text + Format("/%u", network.prefix);
}

std::string NetworkText(const Network6& network) {
  std::string text = AddressText(ToWire(network.address));
  return network.prefix == Network6::kBits ? text : text + Format("/%u", network.prefix);
}

uint32_t ToWire(uint32_t address) { return htonl(address); }
uint32_t FromWire(uint32_t address) { return ntohl(address); }

bpf::address6 ToWire(Uint128 address) {
  bpf::address6 wire;
  for (int i = 0; i < 4; ++i)
    wire.words[i] = htonl(static_cast<uint32_t>(address >> (96 - 32 * i)));
  return wire;
}

Uint128 FromWire(const bpf::address6& address) {
  Uint128 value = 0;
  for (uint32_t word : address.words) value = value << 32 | ntohl(word);
  return value;
}

std::string AddressText(uint32_t address) {
  char text[INET_ADDRSTRLEN];
  return inet_ntop(AF_INET, &address, text, sizeof text) != nullptr ? text : "?";
}

std::string AddressText(const bpf::address6& address) {
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(AF_INET6, &address, text, sizeof text) != nullptr ? text : "?";
}

}  // namespace cube::net
