#ifndef CUBE_NET_TESTING_NAME_SERVER_H_
#define CUBE_NET_TESTING_NAME_SERVER_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "net/testing/network.h"

namespace cube::net::testing {

// A query for a name, without what EDNS adds.
Bytes Query(const std::string& name, uint16_t type, uint16_t id = 77);

// A name server of the world's at 192.0.2.80, by UDP and TCP. Every name is at 192.0.2.80 and
// 2001:db8:80::80, but for metadata.example.com (169.254.169.254, by IPv6 as well),
// mixed.example.com (an address inside as well), other.example.com (198.51.100.7), long.example.com
// (more than a datagram holds) and none.example.com, which there is not.
class NameServer {
 public:
  explicit NameServer(const NetNamespace& world);
  ~NameServer();
  uint64_t asked() const { return asked_; }

 private:
  Bytes Answer(const Bytes& query, bool by_tcp);
  void Serve();

  UniqueFd udp_, tcp_, stop_;
  std::atomic<uint64_t> asked_ = 0;
  std::thread thread_;
};

}  // namespace cube::net::testing

#endif  // CUBE_NET_TESTING_NAME_SERVER_H_
