#include "net/testing/name_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "net/dns_message.h"
#include "net/testing/packet6.h"

namespace cube::net::testing {

Bytes Query(const std::string& name, uint16_t type, uint16_t id) {
  DnsQuestion question;
  question.id = id;
  for (size_t start = 0; start < name.size();) {
    size_t end = std::min(name.find('.', start), name.size());
    question.bytes.push_back(static_cast<uint8_t>(end - start));
    question.bytes.insert(question.bytes.end(), name.begin() + static_cast<long>(start),
                          name.begin() + static_cast<long>(end));
    start = end + 1;
  }
  for (int byte : {0, type >> 8, type & 255, 0, 1}) {
    question.bytes.push_back(static_cast<uint8_t>(byte));
  }
  return MakeDnsQuery(question, id);
}

NameServer::NameServer(const NetNamespace& world)
    : udp_(world.Socket(SOCK_DGRAM, "192.0.2.80", 53)),
      tcp_(world.Socket(SOCK_STREAM, "192.0.2.80", 53)),
      stop_(std::move(NewEventFd().value())),
      thread_([this] { Serve(); }) {}

NameServer::~NameServer() {
  SignalEventFd(stop_.get());
  thread_.join();
}

Bytes NameServer::Answer(const Bytes& query, bool by_tcp) {
  ++asked_;
  auto question = ParseDnsQuery(query);
  if (!question.ok()) return {};
  const std::string& name = question->name;
  if (name == "none.example.com") return MakeDnsError(*question, 3);
  if (question->type == kDnsTypeAaaa) {
    std::vector<DnsAddress6> addresses = {{Address6("2001:db8:80::80"), 60}};
    if (name == "metadata.example.com") addresses = {{Address6("::ffff:169.254.169.254"), 60}};
    if (name == "mixed.example.com") addresses.push_back({Address6("fd00:ec2::254"), 60});
    return MakeDnsAnswer(*question, DnsCode::kNoError, {}, addresses);
  }
  std::vector<DnsAddress> addresses = {{Address("192.0.2.80"), 60}};
  if (name == "metadata.example.com") addresses = {{Address("169.254.169.254"), 60}};
  if (name == "other.example.com") addresses = {{Address("198.51.100.7"), 60}};
  if (name == "mixed.example.com") addresses.push_back({Address("10.0.0.1"), 60});
  if (name == "long.example.com" && by_tcp) addresses.resize(60, {Address("198.51.100.7"), 60});
  Bytes answer = MakeDnsAnswer(*question, DnsCode::kNoError, addresses);
  if (name == "long.example.com" && !by_tcp) answer[2] |= 2;  // truncated
  return answer;
}

void NameServer::Serve() {
  for (;;) {
    pollfd fds[3] = {{stop_.get(), POLLIN, 0}, {udp_.get(), POLLIN, 0}, {tcp_.get(), POLLIN, 0}};
    if (poll(fds, 3, -1) < 0 || fds[0].revents != 0) return;
    Bytes query(2000);
    if (fds[1].revents != 0) {
      sockaddr_in from = {};
      socklen_t length = sizeof from;
      ssize_t n = recvfrom(udp_.get(), query.data(), query.size(), 0,
                           reinterpret_cast<sockaddr*>(&from), &length);
      query.resize(n > 0 ? static_cast<size_t>(n) : 0);
      Bytes answer = Answer(query, false);
      sendto(udp_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from),
             length);
    } else if (fds[2].revents != 0) {
      UniqueFd peer(accept4(tcp_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      ssize_t n = recv(peer.get(), query.data(), query.size(), 0);
      query = n > 2 ? Bytes(query.begin() + 2, query.begin() + n) : Bytes();
      Bytes answer = Answer(query, true);
      answer.insert(answer.begin(), {static_cast<uint8_t>(answer.size() >> 8),
                                     static_cast<uint8_t>(answer.size())});
      send(peer.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  }
}

}  // namespace cube::net::testing
