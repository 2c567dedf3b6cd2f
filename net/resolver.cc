#include "net/resolver.h"

#include <sys/random.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <sstream>

#include "base/byte_io.h"

namespace cube::net {
namespace {

using pool::kAsTuple;
using pool::milliseconds;

constexpr milliseconds kAnswerLimit(2'000);
constexpr milliseconds kIdleLimit(10'000);
constexpr int kRounds = 2;
constexpr uint32_t kMaxBusy = 1024;                    // queries and connections under way
constexpr uint32_t kMaxBusyOfSlot = 64;                // of them, of one sandbox
constexpr uint32_t kLeastOpen = 60, kMostOpen = 3600;  // seconds that an address is open
constexpr size_t kMaxDatagram = 4096;
constexpr size_t kPlainDatagram = 512;  // RFC 1035 section 4.2.1
constexpr uint16_t kDnsPort = 53;
constexpr uint16_t kTruncated = 0x02;  // in the third byte

uint16_t RandomId() {
  uint16_t id = 0;
  return getrandom(&id, sizeof id, 0) == sizeof id ? id : 0;
}

// Closes what it is given unless it goes first.
class Deadline {
 public:
  template <typename Socket>
  Deadline(asio::io_context& io, Socket* socket, milliseconds limit)
      : timer_(std::make_shared<asio::steady_timer>(io, limit)),
        alive_(std::make_shared<bool>(true)) {
    timer_->async_wait([socket, timer = timer_, alive = alive_](boost::system::error_code failed) {
      boost::system::error_code ignored;
      if (!failed && *alive) socket->close(ignored);
    });
  }
  ~Deadline() {
    *alive_ = false;
    timer_->cancel();
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  std::shared_ptr<asio::steady_timer> timer_;
  std::shared_ptr<bool> alive_;
};

struct Counted {
  Counted(uint32_t* one, uint32_t* all) : one_(one), all_(all) { ++*one_, ++*all_; }
  ~Counted() { --*one_, --*all_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  uint32_t *one_, *all_;
};

}  // namespace

std::vector<std::string> HostNameServers(const std::string& text) {
  std::vector<std::string> servers;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, value;
    words >> key >> value;
    if (key == "nameserver" && ParseNetwork(value).ok()) servers.push_back(value);
  }
  return servers;
}

Result<std::shared_ptr<Resolver>> Resolver::Create(asio::io_context& io, Fabric* fabric,
                                                   const Options& options) {
  std::shared_ptr<Resolver> resolver(new Resolver(io, fabric));
  std::vector<std::string> servers = options.servers;
  if (servers.empty()) {
    auto text = ReadSmallFile("/etc/resolv.conf");
    if (text.ok()) servers = HostNameServers(*text);
  }
  for (const std::string& text : servers) {
    CUBE_ASSIGN(PolicyRule server, ParseRule(text));
    bool is_one = server.first_port == 0 || server.first_port == server.last_port;
    if (server.network.prefix != 32 || !is_one) {
      return Errorf("network.dns: \"%.64s\" is no name server", text.c_str());
    }
    resolver->servers_.emplace_back(asio::ip::address_v4(server.network.address),
                                    server.first_port == 0 ? kDnsPort : server.first_port);
  }
  CUBE_TRY(resolver->Listen());
  return resolver;
}

Status Resolver::Listen() {
  asio::ip::address_v4 address(ntohl(fabric_->host_address()));
  boost::system::error_code failed;
  datagrams_.open(Udp::v4(), failed);
  if (!failed) datagrams_.bind({address, 0}, failed);
  if (!failed) listener_.open(Tcp::v4(), failed);
  if (!failed) listener_.bind({address, datagrams_.local_endpoint().port()}, failed);
  if (!failed) listener_.listen(asio::socket_base::max_listen_connections, failed);
  if (!failed) return OkStatus();
  return Errorf("the resolver at %s: %s", address.to_string().c_str(), failed.message().c_str());
}

void Resolver::Start() {
  pool::Spawn(io_, ServeDatagrams());
  pool::Spawn(io_, ServeConnections());
}

void Resolver::Stop() {
  boost::system::error_code ignored;
  datagrams_.close(ignored);
  listener_.close(ignored);
}

Task<void> Resolver::ServeDatagrams() {
  auto self = shared_from_this();
  while (datagrams_.is_open()) {
    Message query(kMaxDatagram);
    Udp::endpoint from;
    auto [failed, size] =
        co_await datagrams_.async_receive_from(asio::buffer(query), from, kAsTuple);
    if (failed == asio::error::operation_aborted) co_return;
    if (failed) continue;  // an ICMP error of a guest that is gone
    query.resize(size);
    pool::Spawn(io_, AnswerDatagram(std::move(query), from));
  }
}

Task<void> Resolver::AnswerDatagram(Message query, Udp::endpoint from) {
  auto self = shared_from_this();
  uint32_t slot = fabric_->SlotByAddress(htonl(from.address().to_v4().to_uint()));
  uint32_t* busy = &busy_[slot];
  if (slot == 0 || *busy >= kMaxBusyOfSlot || all_busy_ >= kMaxBusy) co_return;
  Counted counted(busy, &all_busy_);
  const Message copy = query;
  Message answer = co_await Answer(std::move(query), slot);
  if (answer.empty()) co_return;
  // Without its extension a guest takes no more, and asks again by TCP.
  if (answer.size() > kPlainDatagram) {
    answer = MakeDnsAnswer(*ParseDnsQuery(copy), DnsCode::kNoError);
    answer[2] |= kTruncated;
  }
  if (datagrams_.is_open()) co_await datagrams_.async_send_to(asio::buffer(answer), from, kAsTuple);
}

Task<void> Resolver::ServeConnections() {
  auto self = shared_from_this();
  while (listener_.is_open()) {
    auto [failed, socket] = co_await listener_.async_accept(kAsTuple);
    if (failed == asio::error::operation_aborted) co_return;
    if (!failed) pool::Spawn(io_, ServeConnection(std::move(socket)));
  }
}

Task<void> Resolver::ServeConnection(Tcp::socket socket) {
  auto self = shared_from_this();
  boost::system::error_code failed;
  auto from = socket.remote_endpoint(failed);
  if (failed) co_return;
  uint32_t slot = fabric_->SlotByAddress(htonl(from.address().to_v4().to_uint()));
  uint32_t* busy = &busy_[slot];
  if (slot == 0 || *busy >= kMaxBusyOfSlot || all_busy_ >= kMaxBusy) co_return;
  Counted counted(busy, &all_busy_);
  for (;;) {
    Message query;
    {
      Deadline deadline(io_, &socket, kIdleLimit);
      uint8_t size[2];
      auto [bad, got] = co_await asio::async_read(socket, asio::buffer(size), kAsTuple);
      if (bad) co_return;
      query.resize(static_cast<size_t>(size[0]) << 8 | size[1]);
      auto [worse, rest] = co_await asio::async_read(socket, asio::buffer(query), kAsTuple);
      if (worse) co_return;
    }
    Message answer = co_await Answer(std::move(query), slot);
    if (answer.empty()) co_return;
    uint8_t size[2] = {static_cast<uint8_t>(answer.size() >> 8),
                       static_cast<uint8_t>(answer.size())};
    answer.insert(answer.begin(), size, size + 2);
    Deadline deadline(io_, &socket, kIdleLimit);
    auto [bad, sent] = co_await asio::async_write(socket, asio::buffer(answer), kAsTuple);
    if (bad) co_return;
  }
}

Task<Resolver::Message> Resolver::Answer(Message query, uint32_t slot) {
  ++statistics_.queries;
  auto question = ParseDnsQuery(query);
  if (!question.ok()) co_return Message();
  const Policy* policy = fabric_->PolicyOf(slot);
  bool may =
      policy != nullptr && (policy->internet || MatchesDomain(policy->domains, question->name));
  if (!may) {
    ++statistics_.refused;
    co_return MakeDnsAnswer(*question, DnsCode::kRefused);
  }
  // Who is told at once that there is none does not wait for it.
  if (question->type == kDnsTypeAaaa && !fabric_->WhyNoIpv6().empty()) {
    co_return MakeDnsAnswer(*question, DnsCode::kNoError);
  }
  uint32_t epoch = fabric_->SlotState(slot).epoch;
  Message answer = co_await Ask(*question);
  if (answer.empty()) {
    ++statistics_.failed;
    co_return MakeDnsAnswer(*question, DnsCode::kServer);
  }
  ++statistics_.answered;
  co_return Filter(*question, std::move(answer), slot, epoch);
}

// What the guest hears of an answer, whose addresses are open to it once it does.
Resolver::Message Resolver::Filter(const DnsQuestion& question, Message answer, uint32_t slot,
                                   uint32_t epoch) {
  auto said = ParseDnsAnswer(answer, question, question.id);
  if (!said.ok()) return MakeDnsAnswer(question, DnsCode::kServer);
  if (question.type != kDnsTypeA && question.type != kDnsTypeAaaa) return answer;
  if (said->code != DnsCode::kNoError) return MakeDnsError(question, said->raw_code);
  std::erase_if(said->addresses, [&](const DnsAddress& each) {
    return question.type != kDnsTypeA || fabric_->fixed().IsDenied(FromWire(each.address));
  });
  std::erase_if(said->addresses6, [&](const DnsAddress6& each) {
    return question.type != kDnsTypeAaaa || fabric_->fixed6().IsDenied(FromWire(each.address));
  });
  // The sandbox that asked may be gone, or its list another by now.
  const Policy* policy = fabric_->PolicyOf(slot);
  bool is_listed = policy != nullptr && MatchesDomain(policy->domains, question.name);
  if (fabric_->SlotState(slot).epoch == epoch && is_listed) {
    for (const DnsAddress& each : said->addresses) {
      fabric_->OpenAddress(slot, each.address, std::clamp(each.ttl, kLeastOpen, kMostOpen));
    }
    for (const DnsAddress6& each : said->addresses6) {
      fabric_->OpenAddress6(slot, each.address, std::clamp(each.ttl, kLeastOpen, kMostOpen));
    }
  }
  for (DnsAddress& each : said->addresses) each.ttl = std::min(each.ttl, kMostOpen);
  for (DnsAddress6& each : said->addresses6) each.ttl = std::min(each.ttl, kMostOpen);
  return MakeDnsAnswer(question, DnsCode::kNoError, said->addresses, said->addresses6);
}

// Asks one server after another. The answer has the question's own id.
Task<Resolver::Message> Resolver::Ask(DnsQuestion question) {
  for (int round = 0; round < kRounds; ++round) {
    for (const Udp::endpoint& server : servers_) {
      uint16_t id = RandomId();
      Message answer = co_await AskByUdp(question, server, id);
      if (answer.empty()) continue;
      auto said = ParseDnsAnswer(answer, question, id);
      if (said.ok() && said->truncated) {
        answer = co_await AskByTcp(question, server, id);
        if (answer.empty()) continue;
        said = ParseDnsAnswer(answer, question, id);
      }
      if (!said.ok()) continue;
      answer[0] = static_cast<uint8_t>(question.id >> 8);
      answer[1] = static_cast<uint8_t>(question.id);
      co_return answer;
    }
  }
  co_return Message();
}

// From a port of its own, so that who forges an answer has to guess that, too (RFC 5452).
Task<Resolver::Message> Resolver::AskByUdp(const DnsQuestion& question, Udp::endpoint server,
                                           uint16_t id) {
  Udp::socket socket(io_);
  boost::system::error_code failed;
  socket.open(Udp::v4(), failed);
  if (!failed) socket.connect(server, failed);
  if (failed) co_return Message();
  Deadline deadline(io_, &socket, kAnswerLimit);
  Message query = MakeDnsQuery(question, id);
  auto [unsent, sent] = co_await socket.async_send(asio::buffer(query), kAsTuple);
  if (unsent) co_return Message();
  for (;;) {
    Message answer(kMaxDatagram);
    auto [bad, size] = co_await socket.async_receive(asio::buffer(answer), kAsTuple);
    if (bad) co_return Message();
    answer.resize(size);
    // What is no answer to this does not end the wait for one.
    if (ParseDnsAnswer(answer, question, id).ok()) co_return answer;
  }
}

Task<Resolver::Message> Resolver::AskByTcp(const DnsQuestion& question, Udp::endpoint server,
                                           uint16_t id) {
  Tcp::socket socket(io_);
  boost::system::error_code failed;
  socket.open(Tcp::v4(), failed);
  if (failed) co_return Message();
  Deadline deadline(io_, &socket, kAnswerLimit);
  auto [refused] = co_await socket.async_connect({server.address(), server.port()}, kAsTuple);
  if (refused) co_return Message();
  Message query = MakeDnsQuery(question, id);
  uint8_t size[2] = {static_cast<uint8_t>(query.size() >> 8), static_cast<uint8_t>(query.size())};
  query.insert(query.begin(), size, size + 2);
  auto [unsent, sent] = co_await asio::async_write(socket, asio::buffer(query), kAsTuple);
  if (unsent) co_return Message();
  auto [bad, got] = co_await asio::async_read(socket, asio::buffer(size), kAsTuple);
  if (bad) co_return Message();
  Message answer(static_cast<size_t>(size[0]) << 8 | size[1]);
  auto [worse, rest] = co_await asio::async_read(socket, asio::buffer(answer), kAsTuple);
  if (worse) co_return Message();
  co_return answer;
}

}  // namespace cube::net
