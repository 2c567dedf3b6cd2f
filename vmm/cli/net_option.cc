#include "vmm/cli/net_option.h"

#include <arpa/inet.h>

#include <cstdio>
#include <string_view>

#include "devices/net/tap.h"
#include "devices/net/unplugged.h"
#include "vmm/cli/option_words.h"

namespace cube::vmm {
namespace {

bool ParseMac(const std::string& text, ::cube::devices::MacAddress* mac) {
  unsigned byte[6];
  int end = 0;
  if (sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%n", &byte[0], &byte[1], &byte[2], &byte[3],
             &byte[4], &byte[5], &end) != 6 ||
      text.size() != 17 || end != 17 || (byte[0] & 1) != 0) {
    return false;
  }
  for (size_t i = 0; i < 6; ++i) (*mac)[i] = static_cast<uint8_t>(byte[i]);
  return true;
}

bool IsAddress(const std::string& text) {
  in_addr address;
  return inet_pton(AF_INET, text.c_str(), &address) == 1;
}

bool IsAddressWithPrefix(const std::string& text) {
  size_t slash = text.find('/');
  return slash != std::string::npos && IsAddress(text.substr(0, slash)) &&
         WholeNumber(std::string_view(text).substr(slash + 1), 32).has_value();
}

// False if the value is not what the key takes, or the key is unknown.
bool Take(const std::string& key, const std::string& value, NetOption* option) {
  auto number = WholeNumber(value, ::cube::devices::TokenBucket::kMaxTokens);
  auto set = [&](uint64_t* first, uint64_t* second) {
    if (!number) return false;
    *first = *number;
    if (second != nullptr) *second = *number;
    return true;
  };
  ::cube::devices::RateLimits& rx = option->device.receive;
  ::cube::devices::RateLimits& tx = option->device.transmit;
  if (key == "tap") option->tap = value;
  if (key == "tap") return !value.empty();
  if (key == "mac") option->own_mac = false;
  if (key == "mac") return ParseMac(value, &option->device.mac);
  if (key == "bps") return set(&rx.bytes_per_second, &tx.bytes_per_second);
  if (key == "rx-bps") return set(&rx.bytes_per_second, nullptr);
  if (key == "tx-bps") return set(&tx.bytes_per_second, nullptr);
  if (key == "pps") return set(&rx.operations_per_second, &tx.operations_per_second);
  if (key == "rx-pps") return set(&rx.operations_per_second, nullptr);
  if (key == "tx-pps") return set(&tx.operations_per_second, nullptr);
  if (key == "mtu") {
    if (!number || *number < ::cube::devices::net::kMinMtu ||
        *number > ::cube::devices::net::kMaxMtu)
      return false;
    option->device.mtu = static_cast<uint32_t>(*number);
    return true;
  }
  if (key == "offloads") option->device.offloads = value == "on";
  if (key == "offloads") return value == "on" || value == "off";
  if (key == "fd") {
    auto fd = WholeNumber(value, 1 << 20);
    option->fd = fd && *fd > 2 ? static_cast<int>(*fd) : -1;
    return option->fd > 2;
  }
  if (key == "ip") option->address = value;
  if (key == "ip") return IsAddressWithPrefix(value);
  if (key == "gw") option->gateway = value;
  if (key == "dns") option->dns = value;
  return (key == "gw" || key == "dns") && IsAddress(value);
}

}  // namespace

Result<NetOption> NetOption::Parse(const std::string& text) {
  NetOption option;
  CUBE_ASSIGN(option.device.mac, ::cube::devices::RandomMacAddress());
  for (std::string_view part : SplitWords(text, ',')) {
    const std::string word(part);
    if (word == "cube") {
      // As net/fabric.h has it: every guest of a node is the same.
      option.later = true;
      option.own_mac = false;
      option.device.mac = {0x02, 0xcb, 0x00, 0x00, 0x00, 0x15};
      option.address = "169.254.0.21/30";
      option.gateway = option.dns = "169.254.0.22";
      option.address6 = "fdcb:6375:6265::15/126";
      option.gateway6 = "fdcb:6375:6265::16";
      continue;
    }
    size_t equals = word.find('=');
    if (equals == std::string::npos ||
        !Take(word.substr(0, equals), word.substr(equals + 1), &option)) {
      return Errorf(
          "--net: '%s' is not one of cube, tap=NAME, fd=N, mac=XX:XX:XX:XX:XX:XX (unicast), "
          "mtu=%u..%u, offloads=on|off, ip=A.B.C.D/PREFIX, gw=A.B.C.D, dns=A.B.C.D, "
          "[rx-|tx-]bps=N, "
          "[rx-|tx-]pps=N",
          word.c_str(), ::cube::devices::net::kMinMtu, ::cube::devices::net::kMaxMtu);
    }
  }
  if (!option.tap.empty() + (option.fd >= 0) + option.later != 1) {
    return Errorf("--net: '%s' has to have one of tap=NAME, fd=N and cube", text.c_str());
  }
  if (option.address.empty() && !(option.gateway.empty() && option.dns.empty())) {
    return Errorf("--net: '%s' has a gateway or name server but no ip=", text.c_str());
  }
  return option;
}

Result<std::unique_ptr<::cube::devices::Net>> MakeNet(const NetOption& option, EventLoop* loop) {
  using ::cube::devices::net::Tap;
  if (option.later) {
    return ::cube::devices::Net::Create(std::make_unique<::cube::devices::net::Unplugged>(true),
                                        option.device, loop);
  }
  auto tap = option.fd >= 0 ? Tap::Adopt(UniqueFd(option.fd)) : Tap::Open(option.tap);
  if (!tap.ok()) return Error(tap.error()).Wrap("--net");
  return ::cube::devices::Net::Create(std::move(tap).value(), option.device, loop);
}

std::string NetKernelArgument(const std::vector<NetOption>& options) {
  std::string value;
  for (size_t i = 0; i < options.size(); ++i) {
    const NetOption& option = options[i];
    if (option.address.empty()) continue;
    if (!value.empty()) value += ';';
    value += Format("eth%zu,", i) + option.address + ',' + option.gateway + ',' + option.dns;
    if (option.address6.empty()) continue;
    value += Format(";eth%zu,", i) + option.address6 + ',' + option.gateway6 + ',';
  }
  return value.empty() ? "" : "cube_net=" + value;
}

}  // namespace cube::vmm
